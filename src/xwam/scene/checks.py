"""Whether a 4D scene can be one: said before anything is computed from it, with what to mend."""

import numpy as np
from jaxtyping import Bool, Float

from xwam.core.cameras import check_intrinsics, check_poses
from xwam.core.depth import check_depth
from xwam.core.types import BACKGROUND, OBJECT, ROBOT, RGBDClip, WorldClip


def check_scene(scene: RGBDClip, where: str = "the scene") -> None:
    """Raises a ValueError that names the camera, the value and the mend if cameras or depth of a scene are wrong.

    Singular or implausible intrinsics, poses that are not rigid, NaN or negative depth, millimetres taken for metres.
    """
    height, width = scene.rgb.shape[2:4]
    for v, name in enumerate(scene.cameras):
        camera = f"{where}, camera {name!r}"
        check_intrinsics(camera, scene.intrinsics[v], height, width)
        check_poses(f"{camera}, T_base_cam", scene.T_base_cam[v])
        check_depth(f"{camera}, depth", scene.depth_m[v], scene.depth_scale)


def check_clip(clip: WorldClip, where: str = "the clip") -> None:
    """Raises a ValueError that names the value and the mend if a scene, or what drove it, is wrong."""
    scene, frames = clip.scene, clip.scene.rgb.shape[1]
    check_scene(scene, where)
    if not 0 < scene.period_s < np.inf:
        raise ValueError(f"{where}: period_s is {scene.period_s}: give the seconds from one frame to the next")
    if scene.layers is not None and (strange := np.setdiff1d(scene.layers, (BACKGROUND, ROBOT, OBJECT))).size:
        raise ValueError(
            f"{where}: layers hold {strange[0]}: give {BACKGROUND} background, {ROBOT} robot, {OBJECT} object"
        )
    if list(clip.seams) != sorted(set(clip.seams)) or not all(0 < seam < frames - 1 for seam in clip.seams):
        raise ValueError(f"{where}: seams {clip.seams} of {frames} frames: give rising frames between first and last")
    if strange := sorted(clip.alignments.keys() - set(scene.cameras)):
        raise ValueError(f"{where}: an alignment of camera {strange[0]!r}, which is none of {scene.cameras}")
    check_vectors(f"{where}: proprio", clip.proprio, clip.proprio_names, clip.proprio_units)
    check_vectors(f"{where}: actions", clip.actions, clip.action_names, clip.action_units)
    if clip.proprio is not None and len(clip.proprio) != frames:
        raise ValueError(f"{where}: {len(clip.proprio)} rows of proprio for {frames} frames: give one a frame")
    if clip.actions is not None:
        _check_action_period(where, len(clip.actions), clip.action_period_s, (frames - 1) * scene.period_s)


def check_vectors(
    what: str, rows: Float[np.ndarray, "n D"] | None, names: tuple[str, ...], units: tuple[str, ...]
) -> None:
    """Raises a ValueError unless these are rows of finite numbers, with a name and a unit for each entry or none."""
    if rows is None:
        return
    if rows.ndim != 2 or not np.isfinite(rows).all():
        bad = "of shape " + str(rows.shape) if rows.ndim != 2 else f"not finite in row {_first_row(~np.isfinite(rows))}"
        raise ValueError(f"{what} are {bad}: give rows of finite numbers")
    for kind, told in (("names", names), ("units", units)):
        if told and len(told) != rows.shape[1]:
            raise ValueError(f"{what} have {rows.shape[1]} entries and {len(told)} {kind} {told}: give one for each")


def _first_row(wrong: Bool[np.ndarray, "n D"]) -> int:
    return int(np.argmax(wrong.any(axis=1)))


def _check_action_period(where: str, actions: int, period_s: float | None, duration_s: float) -> None:
    if period_s is None or not 0 < period_s < np.inf:
        raise ValueError(f"{where}: action_period_s is {period_s}: give the seconds from one action to the next")
    if abs(actions * period_s - duration_s) > 0.5 * period_s:
        raise ValueError(
            f"{where}: {actions} actions of {period_s:.4g} s last {actions * period_s:.4g} s, the frames "
            f"{duration_s:.4g} s: give the actions from the first frame to the last"
        )
