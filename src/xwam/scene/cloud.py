"""From pixels with depth to one coloured point cloud per frame, in the robot's base frame.

clip -- keep known depth, drop flying pixels --> unproject per view --> base frame --> fused cloud
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from xwam.core.cameras import unproject
from xwam.core.types import RGBDClip


@dataclass(frozen=True)
class PointCloud:
    """Points in metres in the base frame, their sRGB colours, and the view that saw each."""

    points_m: Float32[np.ndarray, "N 3"]
    colors: UInt8[np.ndarray, "N 3"]
    views: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.points_m)

    def select(self, keep: Bool[np.ndarray, " N"] | Int[np.ndarray, " M"]) -> "PointCloud":
        """The points at these places."""
        return PointCloud(self.points_m[keep], self.colors[keep], self.views[keep])


def fuse(
    clip: RGBDClip,
    frame: int,
    pixels: Bool[np.ndarray, "V H W"] | None = None,
    bounds_m: Float[np.ndarray, "2 3"] | None = None,
    voxel_m: float | None = None,
    max_incidence_deg: float | None = 80.0,
) -> PointCloud:
    """All views of one frame as one cloud.

    Pixels of unknown depth (0) are dropped, and so are those that fly between a near and a far surface (see
    `on_surface`; None keeps them). `pixels` restricts the cloud to some pixels, `bounds_m` to a box of the base
    frame (lowest corner, highest corner), `voxel_m` leaves one mean point per cube of that edge.
    """
    if not 0 <= frame < clip.rgb.shape[1]:
        raise ValueError(f"frame {frame} of a clip that has {clip.rgb.shape[1]}: count from 0")
    depth_m, intrinsics = clip.depth_m[:, frame], clip.intrinsics[:, frame]
    keep = depth_m > 0
    if max_incidence_deg is not None:
        keep &= on_surface(depth_m, intrinsics, max_incidence_deg)
    if pixels is not None:
        keep &= pixels
    points_m = unproject(depth_m, intrinsics, clip.T_base_cam[:, frame])[keep].astype(np.float32)
    cloud = PointCloud(points_m, clip.rgb[:, frame][keep], np.nonzero(keep)[0])
    if bounds_m is not None:
        cloud = cloud.select(np.all((points_m >= bounds_m[0]) & (points_m <= bounds_m[1]), axis=-1))
    return cloud if voxel_m is None else downsample(cloud, voxel_m)


def on_surface(
    depth_m: Float[np.ndarray, "V H W"], intrinsics: Float[np.ndarray, "V 3 3"], max_incidence_deg: float
) -> Bool[np.ndarray, "V H W"]:
    """False for flying pixels: where depth jumps, interpolated and decoded depth hangs in the air.

    Between two neighbours the surface moves by the depth step along the ray and by one pixel's width, depth / focal,
    across it. Their ratio is the tangent of the angle between the ray and the surface's normal, whatever the distance
    and the resolution. A pixel goes if the angle to any of its four neighbours exceeds the limit, or a neighbour is
    unknown: at 80 degrees a table top stays, a silhouette goes.
    """
    limit = np.tan(np.deg2rad(max_incidence_deg))
    flying = np.zeros(depth_m.shape, dtype=bool)
    for axis, focal in ((2, intrinsics[:, 0, 0]), (1, intrinsics[:, 1, 1])):
        depth, jump = np.moveaxis(depth_m, axis, -1), np.moveaxis(flying, axis, -1)
        near = np.minimum(depth[..., 1:], depth[..., :-1])
        # An unknown neighbour makes `near` 0, so that any step exceeds the limit.
        steep = np.abs(np.diff(depth, axis=-1)) > limit * near / focal[:, None, None]
        jump[..., 1:] |= steep
        jump[..., :-1] |= steep
    return ~flying


def downsample(cloud: PointCloud, voxel_m: float) -> PointCloud:
    """One point per occupied cube of edge `voxel_m`: mean place, mean colour, and the first view that saw it."""
    if not voxel_m > 0:
        raise ValueError(f"voxel_m is {voxel_m}: give an edge in metres above 0, or None for every point")
    cubes = np.floor(cloud.points_m / voxel_m).astype(np.int64)
    _, first, cube, count = np.unique(cubes, axis=0, return_index=True, return_inverse=True, return_counts=True)

    def mean(values: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "M 3"]:
        sums = [np.bincount(cube.ravel(), weights=column, minlength=len(count)) for column in values.T]
        return np.stack(sums, axis=-1) / count[:, None]

    colors = np.rint(mean(cloud.colors.astype(np.float64))).astype(np.uint8)
    return PointCloud(mean(cloud.points_m.astype(np.float64)).astype(np.float32), colors, cloud.views[first])
