"""What a prediction must beat: nothing moves, or only the gripper and what is near it do."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt

from xwam.core.cameras import invert, project, transform, unproject
from xwam.core.types import RGBDClip
from xwam.scene.surface import MAX_INCIDENCE_DEG, on_surface

REACH_M = 0.1
"""What is nearer to the gripper than this moves with it: the fingers, the hand, and what they hold."""


def repeat_last_frame(true: RGBDClip) -> RGBDClip:
    """The dummy that a dream must beat: the last frame known before it, frame 0, again and again; cameras stay too."""
    return true.at(np.zeros(true.rgb.shape[1], dtype=np.int64))


def move_with_gripper(
    true: RGBDClip,
    T_base_ee: Float[np.ndarray, "G T 4 4"],
    T_base_cam: Float[np.ndarray, "V T 4 4"],
    reach_m: float = REACH_M,
) -> RGBDClip:
    """The cloud of frame 0, in which all points within `reach_m` of a gripper move rigidly with the nearest one.

    `T_base_ee` are the poses of the robot's grippers, `T_base_cam` those of the cameras, both as predicted or as true.
    Of `true`, only frame 0 is looked at. Each view is drawn from its own pixels, where these leave holes from those of
    the other views, and what is still open takes the nearest pixel that was drawn.
    """
    V, T, H, W, _ = true.rgb.shape
    depth_m, intrinsics = true.depth_m[:, 0], true.intrinsics[:, 0]
    points_m = unproject(depth_m, intrinsics, true.T_base_cam[:, 0])
    gripper = _nearest_gripper(points_m, T_base_ee[:, 0, :3, 3], reach_m)
    known = depth_m > 0
    firm = known & on_surface(depth_m, intrinsics, MAX_INCIDENCE_DEG)
    rgb, depths_m = np.empty_like(true.rgb), np.empty_like(true.depth_m)
    for t in range(T):
        moved = points_m.copy()
        for g in range(len(T_base_ee)):
            moved[gripper == g] = transform(T_base_ee[g, t] @ invert(T_base_ee[g, 0]), points_m[gripper == g])
        for v in range(V):
            own = (np.arange(V) == v)[:, None, None]
            layers = [(moved[pixels], true.rgb[:, 0][pixels]) for pixels in (known & own, firm & ~own)]
            rgb[v, t], depths_m[v, t] = _drawn(layers, true.rgb[v, 0], ~known[v], intrinsics[v], T_base_cam[v, t])
    still = np.repeat(true.intrinsics[:, :1], T, axis=1)
    return replace(true, rgb=rgb, depth_m=depths_m, intrinsics=still, T_base_cam=T_base_cam, layers=None)


def _nearest_gripper(
    points_m: Float[np.ndarray, "*n 3"], grippers_m: Float[np.ndarray, "G 3"], reach_m: float
) -> Float[np.ndarray, "*n"]:
    """Which gripper each point moves with, -1 for none."""
    far_m = np.linalg.norm(points_m[..., None, :] - grippers_m, axis=-1)
    return np.where(far_m.min(axis=-1) < reach_m, far_m.argmin(axis=-1), -1)


def _drawn(
    layers: list[tuple[Float[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"]]],
    before: UInt8[np.ndarray, "H W 3"],
    beyond: Bool[np.ndarray, "H W"],
    intrinsics: Float[np.ndarray, "3 3"],
    T_base_cam: Float[np.ndarray, "4 4"],
) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """An image and its depth from points, nearest in front; a layer only fills what those before it left open.

    Where frame 0 knew no depth (`beyond`) and no point of the first layer comes before it, its pixel stays.
    """
    rgb, depth_m = before.copy(), np.zeros(before.shape[:2], np.float32)
    drawn = np.zeros(before.shape[:2], bool)
    for points_m, colors in layers:
        row, column, z, shown = _pixels(points_m, intrinsics, T_base_cam, before.shape[:2])
        order = np.argsort(-z)  # of values at one place, the last one stays: the nearest
        row, column, z, colors = row[order], column[order], z[order], colors[shown][order]
        free = ~drawn[row, column]
        row, column = row[free], column[free]
        rgb[row, column], depth_m[row, column], drawn[row, column] = colors[free], z[free], True
        drawn |= beyond
    if drawn.any():
        rows, columns = distance_transform_edt(~drawn, return_distances=False, return_indices=True)
        rgb, depth_m = rgb[rows, columns], depth_m[rows, columns]
    return rgb, depth_m


def _pixels(
    points_m: Float[np.ndarray, "N 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    T_base_cam: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Bool[np.ndarray, " N"]]:
    """Row, column and depth of the points that fall into the image, and which these are."""
    places, z = project(points_m, intrinsics, T_base_cam)
    inside = (z > 0) & (places >= 0).all(axis=-1) & (places < size[::-1]).all(axis=-1)
    column, row = places[inside].astype(np.int64).T
    return row, column, z[inside].astype(np.float32), inside
