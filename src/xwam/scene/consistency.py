"""Whether views agree: where two of them see one surface, both must place it at one spot.

A point that view a sees is projected into view b. Its gap there is its depth in b less the depth that b sees at that
place, along b's ray, in metres: about 0 where both see the same, well above 0 where something hides the point from b,
and well below 0 where b looks through it, which one of both has wrong. b's depth between pixel centres is interpolated
as inverse depth, which is exact on planes; at edges and beside unknown pixels b cannot tell, and the gap is NaN.
"""

from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float

from xwam.core.cameras import project, unproject
from xwam.core.types import RGBDClip
from xwam.scene.surface import MAX_INCIDENCE_DEG, on_surface

CAP_M = 0.05
"""A gap counts as this much at most; a point further behind what b sees is hidden from b, and says nothing."""

SLACK_PIXELS = 2.0
"""Views agree on a point whose gap is within so many pixels' width at its distance."""


def cross_view_m(clip: RGBDClip, frame: int) -> float:
    """Cross-view consistency of a frame in metres: 0 is perfect, `CAP_M` is the worst; it needs no truth.

    Mean over every ordered pair of views (a, b), and over all pixels of a that are on a surface and not hidden from b,
    of their gap's size, at most `CAP_M`. NaN if no two views see the same.
    """
    found = gaps(clip.depth_m[:, frame], clip.intrinsics[:, frame], clip.T_base_cam[:, frame])
    counted = np.abs(found[found <= CAP_M])  # NaN compares as false
    return float(np.minimum(counted, CAP_M).mean()) if counted.size else float("nan")


def confidence(
    depth_m: Float[np.ndarray, "V H W"],
    intrinsics: Float[np.ndarray, "V 3 3"],
    T_base_cam: Float[np.ndarray, "V 4 4"],
    slack_pixels: float = SLACK_PIXELS,
) -> Float[np.ndarray, "V H W"]:
    """How far other views confirm each pixel, in (0, 1): (1 + those that agree) / (2 + those that should see it).

    That is Laplace's rule of succession: 1/2 where no other view can tell, 2/3 and 3/4 where one and two agree, 1/3 and
    1/4 where they look through the point. A view should see it unless something hides it there. A gap within
    `slack_pixels` times the width of a pixel at the point's distance, depth / focal, is agreement.
    """
    found = gaps(depth_m, intrinsics, T_base_cam)
    limit_m = slack_pixels * depth_m / intrinsics[:, 0, 0, None, None]
    agree, should = np.abs(found) <= limit_m[:, None], found <= limit_m[:, None]
    return (1 + agree.sum(axis=1)) / (2 + should.sum(axis=1))


def gaps(
    depth_m: Float[np.ndarray, "V H W"], intrinsics: Float[np.ndarray, "V 3 3"], T_base_cam: Float[np.ndarray, "V 4 4"]
) -> Float[np.ndarray, "V V H W"]:
    """The gap of every pixel of view a (first axis) in view b (second), NaN where b cannot tell; see the module."""
    surface = on_surface(depth_m, intrinsics, MAX_INCIDENCE_DEG) & (depth_m > 0)
    points_m = unproject(depth_m, intrinsics, T_base_cam)
    found = np.full((len(depth_m), *depth_m.shape), np.nan)
    for a, b in permutations(range(len(depth_m)), 2):
        known = surface[a]
        seen = np.where(surface[b], depth_m[b], np.nan)
        found[a, b][known] = _gap(points_m[a][known], seen, intrinsics[b], T_base_cam[b])
    return found


def _gap(
    points_m: Float[np.ndarray, "N 3"],
    depth_m: Float[np.ndarray, "H W"],
    intrinsics: Float[np.ndarray, "3 3"],
    T_base_cam: Float[np.ndarray, "4 4"],
) -> Float[np.ndarray, " N"]:
    pixels, z = project(points_m, intrinsics, T_base_cam)
    inverse, inside = interpolated(1 / depth_m, pixels)
    return np.where(inside & (z > 0), z - 1 / inverse, np.nan)


def interpolated(
    image: Float[np.ndarray, "H W"], pixels: Float[np.ndarray, "N 2"]
) -> tuple[Float[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Bilinear values of an image at places (x, y), and which of them lie between four pixel centres."""
    height, width = image.shape
    centred = np.nan_to_num(pixels - 0.5, nan=-1.0, posinf=-1.0, neginf=-1.0)
    inside = ((centred >= 0) & (centred < (width - 1, height - 1))).all(axis=-1)
    x, y = np.where(inside[:, None], centred, 0.0).T
    column, row = x.astype(np.int64), y.astype(np.int64)
    x, y = x - column, y - row
    upper = (1 - x) * image[row, column] + x * image[row, column + 1]
    lower = (1 - x) * image[row + 1, column] + x * image[row + 1, column + 1]
    return (1 - y) * upper + y * lower, inside
