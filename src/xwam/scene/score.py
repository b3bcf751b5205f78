"""How well a predicted 4D scene meets what happened, frame by frame and view by view.

Every number of images, depth and clouds is taken twice: over `all` pixels, and over the `changed` ones alone, since
doing nothing scores well on most of a tabletop. Frame 0 is given and never counts. docs/scoring.md defines it all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8

from xwam.core.cameras import pose_errors
from xwam.core.types import RGBDClip
from xwam.scene.changed import ChangedSurface, changed_mask
from xwam.scene.checks import check_scene
from xwam.scene.cloud import fuse
from xwam.scene.consistency import cross_view_m
from xwam.scene.distances import distances
from xwam.scene.metrics import abs_rel, delta1, masked_mean, psnr, rmse_m, ssim_map

Region = Literal["changed", "all"]
REGIONS: tuple[Region, ...] = get_args(Region)
VOXEL_M = 0.01
"""Clouds are compared with one point a cubic centimetre, about the spacing of pixels of 128 x 128."""
F_SCORES_M = {"f_score_1cm": 0.01, "f_score_5cm": 0.05}
OF_IMAGES, OF_DEPTH = ("psnr_db", "ssim", "lpips"), ("abs_rel", "rmse_m", "delta1")
# A given first frame must be seen from the same place in both, or they are not of one scene.
SAME_PLACE_M, SAME_TURN_RAD, SAME_PIXELS = 0.02, 0.05, 0.01

Perceptual = Callable[[UInt8[np.ndarray, "N H W 3"], UInt8[np.ndarray, "N H W 3"]], Float[np.ndarray, " N"]]
# What a network sees in whole films, one vector each.
Watch = Callable[[UInt8[np.ndarray, "N T H W 3"]], Float[np.ndarray, "N D"]]


@dataclass(frozen=True)
class ClipScores:
    """Measures of one predicted clip by name, each a number for every frame from 1 on; NaN where nothing counts.

    Names are `region/views/measure`: region changed | all; views a camera's name, or the mean over some views: static,
    mounted for those that move, every. X-WAM (arXiv 2604.26694) reports PSNR, SSIM and LPIPS on the static views.
    `episode` tells which clips belong together, as they are no independent samples. `features`, for FVD, are of the
    predicted and of the true films of the static views.
    """

    static: Bool[np.ndarray, " V"]
    steps: dict[str, Float[np.ndarray, " T"]]
    episode: str = ""
    features: tuple[Float[np.ndarray, "n D"], Float[np.ndarray, "n D"]] | None = None

    def flat(self) -> dict[str, float]:
        """The mean over frames of every number."""
        return {name: float(nanmean(values)) for name, values in self.steps.items()}


class Truth:
    """A true scene, and what of it is needed to score any number of predictions.

    `static` names the views of still cameras, by default those that stand still here; `perceptual` measures LPIPS,
    `watch` gives the features of FVD.
    """

    def __init__(
        self,
        scene: RGBDClip,
        static: Bool[np.ndarray, " V"] | None = None,
        perceptual: Perceptual | None = None,
        episode: str = "",
        watch: Watch | None = None,
    ):
        if scene.depth_scale != "metric":
            raise ValueError(f"true depth is {scene.depth_scale}: only metric depth can judge")
        check_scene(scene, "the truth")
        self.scene, self._perceptual, self._episode = scene, perceptual, episode
        self.static = scene.standing() if static is None else static
        self._watch = watch
        self._features = None if watch is None else watch(scene.rgb[self.static])
        self._changed = changed_mask(scene)
        self._clouds = [_cloud(scene, frame) for frame in range(scene.rgb.shape[1])]
        if knows_depth(scene) and (empty := [t for t, cloud in enumerate(self._clouds) if not len(cloud)]):
            raise ValueError(f"the truth has no surface in frame {empty[0]}: leave out frames without depth")
        self._surfaces = [ChangedSurface.between(self._clouds[0], cloud) for cloud in self._clouds[1:]]

    def score(self, predicted: RGBDClip) -> ClipScores:
        """Scores of a prediction; raises ValueError if it is not of the same cameras, places, frames and units.

        A prediction without depth, or of relative depth, has no numbers of depth and clouds, rather than bad ones.
        """
        check_scene(predicted, "the prediction")
        check_comparable(predicted, self.scene)
        of_pixels = self._of_pixels(predicted)
        steps = {}
        for region, measures in of_pixels.items():
            for measure, values in measures.items():
                views = {"static": self.static, "every": np.ones_like(self.static)}
                views |= {name: np.array(self.scene.cameras) == name for name in self.scene.cameras}
                steps |= {f"{region}/{name}/{measure}": nanmean(values[at]) for name, at in views.items()}
        steps |= self._of_clouds(predicted) | self._of_poses(predicted)
        features = None if self._watch is None else (self._watch(predicted.rgb[self.static]), self._features)
        return ClipScores(self.static, steps, self._episode, features)

    def _of_pixels(self, predicted: RGBDClip) -> dict[Region, dict[str, Float[np.ndarray, "V T"]]]:
        """Measures of every view and frame from 1 on."""
        V, T = predicted.rgb.shape[:2]
        names = (*OF_IMAGES[:2], *OF_DEPTH)
        found = {region: {name: np.full((V, T - 1), np.nan) for name in names} for region in REGIONS}
        has_depth = knows_depth(predicted)
        for v, t in np.ndindex(V, T - 1):
            at = (v, t + 1)
            images, depths = (predicted.rgb[at], self.scene.rgb[at]), (predicted.depth_m[at], self.scene.depth_m[at])
            similarity = ssim_map(*images)
            for region, mask in (("changed", self._changed[at]), ("all", None)):
                values = found[region]
                values["psnr_db"][v, t], values["ssim"][v, t] = psnr(*images, mask), masked_mean(similarity, mask)
                if has_depth:
                    values["abs_rel"][v, t], values["delta1"][v, t] = abs_rel(*depths, mask), delta1(*depths, mask)
                    values["rmse_m"][v, t] = rmse_m(*depths, mask)
        if self._perceptual is not None:
            pairs = [clip.rgb[:, 1:].reshape(-1, *clip.rgb.shape[2:]) for clip in (predicted, self.scene)]
            found["all"]["lpips"] = self._perceptual(*pairs).reshape(V, T - 1)
        return found

    def _of_clouds(self, predicted: RGBDClip) -> dict[str, Float[np.ndarray, " T"]]:
        """Measures of the fused cloud of every frame from 1 on; an empty one finds nothing, but is no distance away."""
        frames = predicted.rgb.shape[1] - 1
        names = ("changed/every/chamfer_m", *(f"all/every/{name}" for name in ("chamfer_m", *F_SCORES_M)))
        found = {name: np.full(frames, np.nan) for name in (*names, "all/every/cross_view_m")}
        if not knows_depth(predicted) or not knows_depth(self.scene):
            return found
        for t in range(frames):
            cloud = _cloud(predicted, t + 1)
            found["all/every/cross_view_m"][t] = cross_view_m(predicted, t + 1)
            apart = distances(cloud, self._clouds[t + 1])
            for name, threshold_m in F_SCORES_M.items():
                found[f"all/every/{name}"][t] = 0.0 if apart is None else apart.f_score(threshold_m)
            if apart is None:
                continue
            found["all/every/chamfer_m"][t] = apart.chamfer_m
            if self._surfaces[t] is not None:
                found["changed/every/chamfer_m"][t] = self._surfaces[t].chamfer_m(cloud, apart)
        return found

    def _of_poses(self, predicted: RGBDClip) -> dict[str, Float[np.ndarray, " T"]]:
        """How far the mounted cameras, and so the wrists that carry them, are from where they truly were."""
        apart_m, turned_rad = pose_errors(predicted.T_base_cam[:, 1:], self.scene.T_base_cam[:, 1:])
        steps = {}
        for name, at in self._mounted().items():
            steps[f"all/{name}/position_m"] = nanmean(apart_m[at])
            steps[f"all/{name}/rotation_rad"] = nanmean(turned_rad[at])
        return steps

    def _mounted(self) -> dict[str, Bool[np.ndarray, " V"]]:
        names = np.array(self.scene.cameras)
        return {"mounted": ~self.static} | {name: names == name for name in names[~self.static]}


def evaluate(predicted: RGBDClip, true: RGBDClip, static: Bool[np.ndarray, " V"] | None = None) -> ClipScores:
    """Scores of one prediction; see `Truth`."""
    return Truth(true, static).score(predicted)


def knows_depth(clip: RGBDClip) -> bool:
    """Whether any depth in metres is known after frame 0, which may be given."""
    return clip.depth_scale != "relative" and bool((clip.depth_m[:, 1:] > 0).any())


def check_comparable(predicted: RGBDClip, true: RGBDClip) -> None:
    """Raises a ValueError with the mend unless both show one scene by the same cameras at the same times."""
    if predicted.rgb.shape != true.rgb.shape or predicted.cameras != true.cameras:
        raise ValueError(
            f"predicted views {predicted.cameras} of shape {predicted.rgb.shape}, true {true.cameras} of "
            f"{true.rgb.shape}: give both the same cameras, frames and size"
        )
    if predicted.rgb.shape[1] < 2:
        raise ValueError("clips of one frame: frame 0 is given and never counts, so give two frames or more")
    if not np.isclose(predicted.period_s, true.period_s, rtol=1e-3):
        raise ValueError(
            f"predicted frames are {predicted.period_s} s apart, true ones {true.period_s} s: resample one to the other"
        )
    width = true.rgb.shape[3]
    for v, camera in enumerate(true.cameras):
        if np.abs(predicted.intrinsics[v] - true.intrinsics[v]).max() > SAME_PIXELS * width:
            raise ValueError(f"camera {camera!r} has other intrinsics in the truth: crop and resize both alike")
    apart_m, turned_rad = pose_errors(predicted.T_base_cam[:, 0], true.T_base_cam[:, 0])
    for camera, far_m, turn_rad in zip(true.cameras, apart_m, turned_rad, strict=True):
        if far_m > SAME_PLACE_M or turn_rad > SAME_TURN_RAD:
            raise ValueError(
                f"camera {camera!r} starts {1000 * far_m:.0f} mm from where it is in the truth, turned by "
                f"{np.rad2deg(turn_rad):.0f} degrees: give both in one base frame, from one moment"
            )


def nanmean(values: Float[np.ndarray, "n *m"]) -> Float[np.ndarray, "*m"]:
    """Mean over the first axis of what is known; NaN, without a warning, where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _cloud(clip: RGBDClip, frame: int) -> Float[np.ndarray, "N 3"]:
    """The fused points of a frame, without flying pixels: as the viewer shows them, thinned."""
    return fuse(clip, frame, voxel_m=VOXEL_M).points_m
