"""Relative depth of several cameras brought to one scale by what two of them see alike, where nothing is measured.

Cameras whose poses are known in metres triangulate: a point that one camera places must lie where another sees it.
What all views share is held loosely where most of what they see is a plane: an affine map of inverse depth moves planes
to planes, so a table top that is a quarter nearer in every view still agrees. Between views agreement is close.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from xwam.core.cameras import pixel_grid, project, transform
from xwam.core.depth import InverseDepthAlignment
from xwam.core.types import RGBDClip
from xwam.scene.consistency import interpolated
from xwam.scene.scale import inverse_depth
from xwam.scene.surface import MAX_INCIDENCE_DEG, on_surface

# Points a view, enough for a hundredth of the scale; limits of the logarithm of depth over depth, from coarse to fine:
# what disagrees by more is hidden, or wrong, and counts no further.
POINTS, LEAST_POINTS = 400, 50
LIMITS = 0.4, 0.15, 0.05
ROUNDS, FINEST = 4, 0.003
UNSEEN = 9.0
# Common scales to begin from, and how many of the best are followed.
SCALES, FOLLOWED = np.geomspace(0.1, 10, 25), 2
# Of a view's points, the share that has to lie in another view, and of these the share that has to agree with it.
LEAST_SEEN, LEAST_AGREEING = 0.1, 0.5
# Spread of a view's inverse depth over its median, below which a flat wall was made of it.
FLAT = 0.02


@dataclass(frozen=True)
class _Points:
    """Some pixels of a view: the directions that they look in, at unit depth, and their codes."""

    view: int
    rays: Float[np.ndarray, "N 3"]
    codes: Float[np.ndarray, " N"]


def align_views(scene: RGBDClip) -> tuple[RGBDClip, dict[str, InverseDepthAlignment]]:
    """The scene with one affine map of inverse depth a camera, so that cameras agree on what they see alike.

    Found in the first frame, kept for all. The scale stays `relative`: nothing was measured. Raises ValueError if views
    are too few, or overlap or agree too little to tell.
    """
    if scene.depth_scale != "relative" or len(scene.cameras) < 2:
        told = f"{scene.depth_scale} depth of {len(scene.cameras)} cameras"
        raise ValueError(f"{told}: only relative depth of two or more cameras is brought to one scale")
    codes = inverse_depth(scene.depth_m[:, 0])
    points = [_points_of(scene, codes, v) for v in range(len(scene.cameras))]
    unit = float(np.nanmedian(codes))
    parameters = _solved(scene, codes, points, unit)
    fits = _fits(scene, codes, points, parameters, unit)
    depth_m = [fits[name].apply(inverse_depth(scene.depth_m[v])) for v, name in enumerate(scene.cameras)]
    return replace(scene, depth_m=np.stack(depth_m)), fits


def _points_of(scene: RGBDClip, codes: Float[np.ndarray, "V H W"], view: int) -> _Points:
    depth_m, intrinsics = scene.depth_m[view : view + 1, 0], scene.intrinsics[view, 0]
    sure = np.argwhere((depth_m > 0)[0] & on_surface(depth_m, intrinsics[None], MAX_INCIDENCE_DEG)[0])
    if len(sure) < LEAST_POINTS:
        raise ValueError(
            f"camera {scene.cameras[view]!r} shows surfaces in {len(sure)} pixels of its first frame, needs "
            f"{LEAST_POINTS}: its depth is too rough to be compared; measure depth in the first frame"
        )
    some = np.random.default_rng(view).permutation(sure)[:POINTS]
    pixels = pixel_grid(*depth_m.shape[1:])[some[:, 0], some[:, 1]]
    xy = (pixels - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]
    return _Points(view, np.concatenate([xy, np.ones((len(xy), 1))], axis=1), codes[view][some[:, 0], some[:, 1]])


def _solved(
    scene: RGBDClip, codes: Float[np.ndarray, "V H W"], points: list[_Points], unit: float
) -> Float[np.ndarray, "V 2"]:
    """Logarithm of the scale and shift, in units of the median code, of each view."""

    def errors(parameters: Float[np.ndarray, " P"], limit: float) -> Float[np.ndarray, " N"]:
        disagreement = _disagreement(scene, codes, points, parameters.reshape(-1, 2), unit)
        return np.concatenate([limit * np.tanh(d / limit) for d in disagreement.values()])

    starts = [np.tile([np.log(scale), 0.0], len(points)) for scale in SCALES]
    starts = sorted(starts, key=lambda start: float(np.square(errors(start, LIMITS[0])).sum()))[:FOLLOWED]
    found = []
    for start in starts:
        for limit in LIMITS:
            solution = least_squares(errors, start, args=(limit,), diff_step=1e-4, max_nfev=30)
            start = solution.x
        found.append((solution.cost, tuple(start)))
    best = np.array(min(found)[1])
    for _ in range(ROUNDS):
        # to lose a point from view costs as much as to disagree about it, which draws views together; so in the end
        # those that agree are kept as they are, and no others come to them
        now = errors(best, UNSEEN)
        agree = np.abs(now) < LIMITS[-1]
        if not agree.any():
            break
        agree &= np.abs(now) < max(FINEST, 4 * np.median(np.abs(now[agree])))
        best = least_squares(
            lambda x, some: errors(x, 2 * LIMITS[-1])[some], best, args=(agree,), diff_step=1e-4, max_nfev=30
        ).x
    return best.reshape(-1, 2)


def _disagreement(
    scene: RGBDClip,
    codes: Float[np.ndarray, "V H W"],
    points: list[_Points],
    parameters: Float[np.ndarray, "V 2"],
    unit: float,
) -> dict[tuple[int, int], Float[np.ndarray, " N"]]:
    """By pair of views, log of the depth that one gives its points over the other's there; `UNSEEN` out of its view."""
    scales, shifts = np.exp(parameters[:, 0].clip(-9, 9)), unit * parameters[:, 1]
    told = {}
    for some in points:
        inverse = scales[some.view] * some.codes + shifts[some.view]
        seen = inverse > 1e-6
        in_base = transform(scene.T_base_cam[some.view, 0], some.rays / np.where(seen, inverse, 1)[:, None])
        for other in range(len(points)):
            if other != some.view:
                code, z = _looked_up(scene, codes, other, in_base)
                theirs = scales[other] * code + shifts[other]
                both = seen & np.isfinite(theirs) & (theirs > 1e-6)
                ratio = np.where(both, z * theirs, 1.0)
                told[some.view, other] = np.where(both, np.log(ratio), UNSEEN)
    return told


def _looked_up(
    scene: RGBDClip, codes: Float[np.ndarray, "V H W"], view: int, points_m: Float[np.ndarray, "N 3"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """A view's codes where points appear in it, bilinear, NaN outside and beside the unknown; and their depth there."""
    pixels, z = project(points_m, scene.intrinsics[view, 0], scene.T_base_cam[view, 0])
    code, inside = interpolated(codes[view], pixels)
    inside &= z > 1e-3
    return np.where(inside, code, np.nan), np.where(inside, z, 1.0)


def _fits(
    scene: RGBDClip,
    codes: Float[np.ndarray, "V H W"],
    points: list[_Points],
    parameters: Float[np.ndarray, "V 2"],
    unit: float,
) -> dict[str, InverseDepthAlignment]:
    """Each view's map, with how well its points agree with the views that see them."""
    told = _disagreement(scene, codes, points, parameters, unit)
    fits = {}
    for v, name in enumerate(scene.cameras):
        apart = np.concatenate([pair for (one, _), pair in told.items() if one == v])
        agree, seen = np.abs(apart) < LIMITS[-1], apart < UNSEEN
        scale, shift = float(np.exp(parameters[v, 0])), float(unit * parameters[v, 1])
        flat = scale * np.std(points[v].codes) < FLAT * (scale * np.median(points[v].codes) + shift)
        if flat or seen.sum() < LEAST_SEEN * len(seen) or agree.sum() < LEAST_AGREEING * seen.sum():
            raise ValueError(
                f"of {len(points[v].codes)} points of camera {name!r}, other cameras see {seen.sum()}, and "
                f"{0 if flat else agree.sum()} agree: the views overlap too little, or their depth is not of one "
                "scene; measure depth in the first frame"
            )
        inverse = np.tile(scale * points[v].codes + shift, len(points) - 1)
        residual = float(np.sqrt(np.mean(np.square(apart[agree] * inverse[agree]))))
        fits[name] = InverseDepthAlignment(scale, shift, residual, float(agree.mean()), len(points[v].codes))
    return fits
