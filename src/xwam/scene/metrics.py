"""How well a dream meets what happened, and how well doing nothing would have met it.

Every number is taken twice: over `all` pixels, and over the `changed` ones alone. Most of a tabletop never moves, so
that repeating the first frame scores well on `all`; only `changed` tells a dream from a photograph. Frame 0 is given
and never counts.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from xwam.core.types import RGBDClip
from xwam.scene.cloud import fuse

Region = Literal["changed", "all"]
CHANGED_POINT_M = 0.02
VOXEL_M = 0.01
REGIONS: tuple[Region, ...] = get_args(Region)

PSNR_OF_IDENTICAL_DB = 100.0
"""A finite stand-in for infinity, so that a mean over frames stays a number."""


def psnr(
    predicted: UInt8[np.ndarray, "H W 3"], true: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE), the MSE over the pixels of the mask and RGB."""
    squared = (predicted.astype(np.float64) - true) ** 2
    error = _mean(squared.mean(axis=-1), mask)
    return PSNR_OF_IDENTICAL_DB if error == 0 else 10 * float(np.log10(255.0**2 / error))


def ssim(
    predicted: UInt8[np.ndarray, "H W 3"], true: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Structural similarity: mean of `ssim_map` over the mask."""
    return _mean(ssim_map(predicted, true), mask)


def ssim_map(predicted: UInt8[np.ndarray, "H W 3"], true: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    """Structural similarity around every pixel (Wang et al. 2004, eq. 13; K1 0.01, K2 0.03), mean over RGB.

    Windows are 11 x 11, Gaussian of sigma 1.5; the image is mirrored at its border, as in torchmetrics.
    """
    x, y = predicted.astype(np.float64), true.astype(np.float64)

    def window(image: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
        return gaussian_filter(image, sigma=1.5, radius=5, axes=(0, 1), mode="mirror")

    mean_x, mean_y = window(x), window(y)
    var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean(axis=-1)


def abs_rel(
    predicted_m: Float[np.ndarray, "H W"], true_m: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Mean of |predicted - true| / true over known true depth; a prediction left unknown (0) errs by 1."""
    known = true_m > 0
    error = np.abs(predicted_m - true_m) / np.where(known, true_m, 1.0)
    return _mean(error, known if mask is None else known & mask)


def delta1(
    predicted_m: Float[np.ndarray, "H W"], true_m: Float[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None = None
) -> float:
    """Share of known true depth with max(predicted / true, true / predicted) < 1.25; an unknown prediction fails."""
    known = true_m > 0
    near = (predicted_m < 1.25 * true_m) & (true_m < 1.25 * predicted_m)
    return _mean(near, known if mask is None else known & mask)


def chamfer(a_m: Float[np.ndarray, "N 3"], b_m: Float[np.ndarray, "M 3"]) -> float:
    """Chamfer distance in metres: half of (mean over a of the distance to b's nearest point, plus b's to a's).

    Distances are Euclidean, not squared, and each side weighs the same. NaN if either cloud is empty.
    """
    if len(a_m) == 0 or len(b_m) == 0:
        return float("nan")
    to_b, _ = KDTree(b_m).query(a_m)
    to_a, _ = KDTree(a_m).query(b_m)
    return float((to_b.mean() + to_a.mean()) / 2)


def _mean(values: Float[np.ndarray, "H W"] | Bool[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"] | None) -> float:
    chosen = values if mask is None else values[mask]
    return float(chosen.mean()) if chosen.size else float("nan")


def changed_mask(true: RGBDClip, rgb_step: int = 20, depth_step_m: float = 0.01) -> Bool[np.ndarray, "V T H W"]:
    """Pixels that truly differ from frame 0: any of RGB by more than `rgb_step` of 255, or depth by more than 1 cm.

    20 of 255 lies above the noise of compressed video, below a moving gripper or shadow. Depth counts where both
    frames know it. Taken from the truth alone, so no prediction chooses the pixels that judge it; what it invents
    elsewhere shows in `all`. A camera that moves changes nearly everywhere. Frame 0 has no changed pixel.
    """
    rgb = np.abs(true.rgb.astype(np.int16) - true.rgb[:, :1]).max(axis=-1) > rgb_step
    known = (true.depth_m > 0) & (true.depth_m[:, :1] > 0)
    return rgb | (known & (np.abs(true.depth_m - true.depth_m[:, :1]) > depth_step_m))


def repeat_last_frame(true: RGBDClip) -> RGBDClip:
    """The dummy that a dream must beat: the last frame known before it, frame 0, again and again; cameras stay too."""
    frames = np.zeros(true.rgb.shape[1], dtype=np.int64)
    names = ("rgb", "depth_m", "intrinsics", "T_base_cam")
    return replace(true, **{name: getattr(true, name)[:, frames] for name in names})


def static_views(clip: RGBDClip) -> Bool[np.ndarray, " V"]:
    """Views whose camera stands still: every entry of T_base_cam within 1e-4 (0.1 mm) of frame 0's."""
    return np.abs(clip.T_base_cam - clip.T_base_cam[:, :1]).max(axis=(1, 2, 3)) < 1e-4


@dataclass(frozen=True)
class Scores:
    """Means over frames 1.. of one region; images and depth per view, one Chamfer distance for the fused cloud.

    NaN where the region is empty in every frame.
    """

    psnr_db: Float[np.ndarray, " V"]
    ssim: Float[np.ndarray, " V"]
    abs_rel: Float[np.ndarray, " V"]
    delta1: Float[np.ndarray, " V"]
    chamfer_m: float


@dataclass(frozen=True)
class Metrics:
    """One dream against the truth, over the changed pixels and over all."""

    cameras: tuple[str, ...]
    static: Bool[np.ndarray, " V"]
    changed: Scores
    all: Scores

    def flat(self) -> dict[str, float]:
        """Numbers by `region/views/measure`: region changed | all, views static | every (means over these views).

        X-WAM (arXiv 2604.26694) reports PSNR and SSIM on the static views.
        """
        numbers = {}
        for region in REGIONS:
            scores = getattr(self, region)
            for name, views in (("static", self.static), ("every", np.ones_like(self.static))):
                for measure in ("psnr_db", "ssim", "abs_rel", "delta1"):
                    numbers[f"{region}/{name}/{measure}"] = _nanmean(getattr(scores, measure)[views])
            numbers[f"{region}/every/chamfer_m"] = scores.chamfer_m
        return numbers


def evaluate(predicted: RGBDClip, true: RGBDClip, static: Bool[np.ndarray, " V"] | None = None) -> Metrics:
    """Scores a dream. `static` names the views of still cameras; by default those that stand still in the truth."""
    if predicted.rgb.shape != true.rgb.shape or predicted.cameras != true.cameras:
        raise ValueError(
            f"predicted views {predicted.cameras} of shape {predicted.rgb.shape}, true {true.cameras} of "
            f"{true.rgb.shape}: give both the same cameras, frames and size"
        )
    if predicted.depth_scale == "relative" or true.depth_scale != "metric":
        raise ValueError(
            f"predicted depth is {predicted.depth_scale}, true depth {true.depth_scale}: the truth must be metric, and "
            "relative depth is first aligned to it (core.depth.align)"
        )
    changed = changed_mask(true)
    static = static_views(true) if static is None else static
    pairs = list(zip(_clouds(predicted), _clouds(true), strict=True))
    before = pairs[0][1]
    over_changed = _nanmean(np.array([chamfer_of_changed(p, t, before) for p, t in pairs[1:]]))
    over_all = _nanmean(np.array([chamfer(p, t) for p, t in pairs[1:]]))
    return Metrics(
        true.cameras,
        static,
        Scores(*_per_view(predicted, true, changed), over_changed),
        Scores(*_per_view(predicted, true, np.ones_like(changed)), over_all),
    )


def _per_view(predicted: RGBDClip, true: RGBDClip, mask: Bool[np.ndarray, "V T H W"]) -> Float[np.ndarray, "4 V"]:
    """PSNR, SSIM, AbsRel and delta1 of each view, means over frames 1.. ."""
    V, T = mask.shape[:2]
    per_frame = np.empty((4, V, T - 1))
    for v in range(V):
        for t in range(1, T):
            images = (predicted.rgb[v, t], true.rgb[v, t], mask[v, t])
            depths = (predicted.depth_m[v, t], true.depth_m[v, t], mask[v, t])
            per_frame[:, v, t - 1] = psnr(*images), ssim(*images), abs_rel(*depths), delta1(*depths)
    return np.array([[_nanmean(frames) for frames in measure] for measure in per_frame])


def chamfer_of_changed(
    predicted_m: Float[np.ndarray, "N 3"],
    true_m: Float[np.ndarray, "M 3"],
    before_m: Float[np.ndarray, "K 3"],
    step_m: float = CHANGED_POINT_M,
) -> float:
    """Chamfer distance in metres over what truly changed since frame 0, whose true cloud is `before_m`.

    The region is where surface appeared (true points further than `step_m` from the cloud before) or vanished (points
    before, further than that from the true cloud), and `step_m` around both: taken from the truth alone. Half the sum
    of the mean distance from the true points that appeared to the prediction, and of that from the predicted points
    in the region to the truth. A still prediction keeps what vanished and lacks what appeared, and errs by more than
    `step_m` on both. NaN where nothing changed.
    """
    if min(len(predicted_m), len(true_m), len(before_m)) == 0:
        return float("nan")
    true_tree, before_tree = KDTree(true_m), KDTree(before_m)
    appeared = true_m[before_tree.query(true_m)[0] > step_m]
    vanished = before_m[true_tree.query(before_m)[0] > step_m]
    if len(appeared) == 0 or len(vanished) == 0:
        return float("nan")
    near = KDTree(np.concatenate([appeared, vanished])).query(predicted_m)[0] <= step_m
    missed, _ = KDTree(predicted_m).query(appeared)
    # What is predicted nowhere in the region errs on that side as what appeared and was missed.
    wrong = true_tree.query(predicted_m[near])[0] if near.any() else missed
    return float((missed.mean() + wrong.mean()) / 2)


def _clouds(clip: RGBDClip) -> list[Float[np.ndarray, "N 3"]]:
    """The fused points of every frame, without flying pixels, one a cubic centimetre: as the viewer shows them."""
    return [fuse(clip, frame, voxel_m=VOXEL_M).points_m for frame in range(clip.rgb.shape[1])]


def _nanmean(values: Float[np.ndarray, " N"]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` dreams with its bootstrap 95% interval."""

    mean: float
    low: float
    high: float
    count: int


def summarise(metrics: list[Metrics], resamples: int = 10_000, seed: int = 0) -> dict[str, Estimate]:
    """Mean and percentile-bootstrap 95% interval (Efron 1979) of every number of `Metrics.flat`, dreams resampled."""
    if not metrics:
        raise ValueError("no metrics to summarise: evaluate one dream or more")
    flats = [one.flat() for one in metrics]
    return {name: _estimate(np.array([flat[name] for flat in flats]), resamples, seed) for name in flats[0]}


def _estimate(values: Float[np.ndarray, " N"], resamples: int, seed: int) -> Estimate:
    known = values[~np.isnan(values)]
    if not known.size:
        return Estimate(float("nan"), float("nan"), float("nan"), count=0)
    draws = np.random.default_rng(seed).integers(known.size, size=(resamples, known.size))
    low, high = np.quantile(known[draws].mean(axis=1), [0.025, 0.975])
    return Estimate(float(known.mean()), float(low), float(high), known.size)
