"""What part of the world a clip is about, and from where to look at it first: told by its still cameras."""

import numpy as np
from jaxtyping import Bool, Float

from xwam.core.types import RGBDClip
from xwam.scene.cloud import fuse


def workspace(clip: RGBDClip) -> Float[np.ndarray, "2 3"]:
    """A box around what the still cameras look at, without the far floor and walls.

    Its centre is the median of the points in the middle of their images, it reaches half as far as from there to the
    cameras, and it is cut to the points that the first and last frame have in it, and 5% more.
    """
    views = looking(clip)
    height, width = clip.rgb.shape[2:4]
    middle = np.zeros((len(views), height, width), dtype=bool)
    middle[views, height // 3 : -(height // 3), width // 3 : -(width // 3)] = True
    seen = fuse(clip, 0, pixels=middle).points_m
    if not len(seen):
        raise ValueError(f"no depth in the middle of the views {clip.cameras}: give bounds_m, a box of the base frame")
    centre = np.median(seen, axis=0).astype(np.float64)
    reach = 0.5 * np.median(np.linalg.norm(clip.T_base_cam[views, 0, :3, 3] - centre, axis=-1))
    cube = np.stack([centre - reach, centre + reach])
    near = np.concatenate([fuse(clip, frame, bounds_m=cube).points_m for frame in (0, clip.rgb.shape[1] - 1)])
    margin = 0.05 * np.ptp(near, axis=0)
    return np.stack([near.min(axis=0) - margin, near.max(axis=0) + margin]).astype(np.float64)


def looking(clip: RGBDClip) -> Bool[np.ndarray, " V"]:
    """The still cameras, or all if none stands still: they tell what a clip is about."""
    still = clip.standing()
    return still if still.any() else ~still


def first_direction(clip: RGBDClip) -> Float[np.ndarray, "3"]:
    """Level direction in which the still cameras look, all together."""
    forward = clip.T_base_cam[looking(clip), 0, :3, 2].mean(axis=0) * (1, 1, 0)
    length = np.linalg.norm(forward)
    # Cameras that face each other or look straight down have no side; then look along x, as the robot does.
    return forward / length if length > 0.1 else np.array([1.0, 0.0, 0.0])


def anchors(clip: RGBDClip, bounds_m: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "N 3"]:
    """Outermost points of the first and the last frame in a box: a view that holds them holds all that is seen there.

    Raises ValueError if there is no point in the box.
    """
    ends = (0, clip.rgb.shape[1] - 1)
    points_m = np.concatenate([fuse(clip, frame, bounds_m=bounds_m).points_m for frame in ends]).astype(np.float64)
    if not len(points_m):
        raise ValueError(f"no point of the clip is in the box from {bounds_m[0]} to {bounds_m[1]}: give other bounds_m")
    directions = np.stack(np.meshgrid(*[(-2, -1, 0, 1, 2)] * 3), axis=-1).reshape(-1, 3)
    return points_m[np.unique([np.argmax(points_m @ direction) for direction in directions if direction.any()])]
