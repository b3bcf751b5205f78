"""From pixels with depth to one coloured point cloud per frame, in the robot's base frame.

clip -- keep known depth, drop flying pixels --> unproject per view --> base frame --> fused cloud
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from xwam.core.cameras import unproject
from xwam.core.types import RGBDClip
from xwam.scene.checks import check_scene
from xwam.scene.consistency import confidence
from xwam.scene.flow import scene_flow
from xwam.scene.surface import MAX_INCIDENCE_DEG, normals, on_surface


@dataclass(frozen=True)
class PointCloud:
    """Points in metres in the base frame, their sRGB colours, and the view that saw each.

    If asked for, also unit `normals` towards that view (0 where its neighbours are unknown), `confidence` in (0, 1) and
    `flow_m`, how far each moves until the next frame (NaN where it is not tracked); if the clip has them, `layers`:
    `BACKGROUND`, `ROBOT` or `OBJECT`.
    """

    points_m: Float32[np.ndarray, "N 3"]
    colors: UInt8[np.ndarray, "N 3"]
    views: Int[np.ndarray, " N"]
    normals: Float32[np.ndarray, "N 3"] | None = None
    confidence: Float32[np.ndarray, " N"] | None = None
    layers: UInt8[np.ndarray, " N"] | None = None
    flow_m: Float32[np.ndarray, "N 3"] | None = None

    def __len__(self) -> int:
        return len(self.points_m)

    def select(self, keep: Bool[np.ndarray, " N"] | Int[np.ndarray, " M"]) -> "PointCloud":
        """The points at these places."""
        return PointCloud(*(None if column is None else column[keep] for column in vars(self).values()))

    def of_layer(self, layer: int) -> "PointCloud":
        """The points of one layer, such as `ROBOT`; raises ValueError if layers are unknown."""
        if self.layers is None:
            raise ValueError("this cloud has no layers: fuse a clip that has them, as the simulator's have")
        return self.select(self.layers == layer)


def fuse(
    clip: RGBDClip,
    frame: int,
    pixels: Bool[np.ndarray, "V H W"] | None = None,
    bounds_m: Float[np.ndarray, "2 3"] | None = None,
    voxel_m: float | None = None,
    max_incidence_deg: float | None = MAX_INCIDENCE_DEG,
    with_normals: bool = False,
    with_confidence: bool = False,
    min_confidence: float = 0.0,
    with_flow: bool = False,
) -> PointCloud:
    """All views of one frame as one cloud.

    Pixels of unknown depth (0) are dropped, and so are those that fly between a near and a far surface (see
    `on_surface`; None keeps them). `pixels` restricts the cloud to some pixels, `bounds_m` to a box of the base
    frame (lowest corner, highest corner), `voxel_m` leaves one mean point per cube of that edge. With confidence (see
    `consistency.confidence`), points below `min_confidence` go: at 0.4 those that other views contradict. Flow is that
    of `flow.scene_flow`, of all frames but the last.
    Raises ValueError if the frame's cameras or depth are wrong.
    """
    if not 0 <= frame < clip.rgb.shape[1]:
        raise ValueError(f"frame {frame} of a clip that has {clip.rgb.shape[1]}: count from 0")
    check_scene(clip.at(slice(frame, frame + 1)), f"frame {frame}")
    depth_m, intrinsics, poses = clip.depth_m[:, frame], clip.intrinsics[:, frame], clip.T_base_cam[:, frame]
    keep = depth_m > 0
    places = unproject(depth_m, intrinsics, poses)
    turned = normals(places, keep, poses[:, :3, 3]) if with_normals else None
    sure = confidence(depth_m, intrinsics, poses) if with_confidence or min_confidence > 0 else None
    if max_incidence_deg is not None:
        keep &= on_surface(depth_m, intrinsics, max_incidence_deg)
    if pixels is not None:
        keep &= pixels
    if sure is not None:
        keep &= sure >= min_confidence
    if bounds_m is not None:
        keep &= np.all((places >= bounds_m[0]) & (places <= bounds_m[1]), axis=-1)
    cloud = PointCloud(
        places[keep].astype(np.float32),
        clip.rgb[:, frame][keep],
        np.nonzero(keep)[0],
        None if turned is None else turned[keep].astype(np.float32),
        None if sure is None else sure[keep].astype(np.float32),
        None if clip.layers is None else clip.layers[:, frame][keep],
        scene_flow(clip, frame)[keep] if with_flow else None,
    )
    return cloud if voxel_m is None else downsample(cloud, voxel_m)


def downsample(cloud: PointCloud, voxel_m: float) -> PointCloud:
    """One point per occupied cube of edge `voxel_m`, of what is in it: mean place, colour, normal and known flow.

    Points weigh as much as they are sure, if confidence is known; the cube's own is that of its surest point. View and
    layer are those of the first view that saw it.
    """
    if not voxel_m > 0:
        raise ValueError(f"voxel_m is {voxel_m}: give an edge in metres above 0, or None for every point")
    if not len(cloud):
        return cloud
    cubes = np.floor(cloud.points_m / voxel_m).astype(np.int64)
    corner, far_corner = cubes.min(axis=0), cubes.max(axis=0)
    number = np.ravel_multi_index(tuple((cubes - corner).T), tuple(far_corner - corner + 1))
    _, first, cube = np.unique(number, return_index=True, return_inverse=True)
    count = len(first)
    weight = np.ones(len(cloud)) if cloud.confidence is None else cloud.confidence.astype(np.float64)
    total = np.bincount(cube, weight, minlength=count)[:, None]

    def mean(values: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "M 3"]:
        sums = [np.bincount(cube, weights=weight * column, minlength=count) for column in values.T]
        return np.stack(sums, axis=-1) / total

    turned, sure, flow = cloud.normals, cloud.confidence, cloud.flow_m
    if flow is not None:
        known = np.isfinite(flow)
        share = mean(known.astype(np.float64))
        flow = (mean(np.where(known, flow, 0.0)) / np.where(share > 0, share, np.nan)).astype(np.float32)
    if turned is not None:
        length = np.linalg.norm(turned := mean(turned), axis=-1, keepdims=True)
        turned = (turned / np.where(length > 0, length, 1.0)).astype(np.float32)
    if sure is not None:
        sure = np.zeros(count, np.float32)
        np.maximum.at(sure, cube, cloud.confidence)
    return PointCloud(
        mean(cloud.points_m.astype(np.float64)).astype(np.float32),
        np.rint(mean(cloud.colors.astype(np.float64))).astype(np.uint8),
        cloud.views[first],
        turned,
        sure,
        None if cloud.layers is None else cloud.layers[first],
        flow,
    )
