"""What can be wrong with a recorded episode: one function a question, which answers with findings.

Thresholds are constants with their reason. An `error` must be mended before training; a `warning` is to be looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from xwam.core.cameras import FOCAL_RANGE, RIGID_TOLERANCE, project, unproject
from xwam.core.depth import DEPTH_CODES
from xwam.core.embodiment import Embodiment
from xwam.data.episodes import Episode
from xwam.data.layout import DatasetSpec

Severity = Literal["error", "warning"]
# LeRobot's readers allow 1e-4 s between a row's time and its frame's.
TIMESTAMP_TOLERANCE_S = 1e-4
UNIT_TOLERANCE = 1e-3
HOLES_WARNING = 0.5
# Seconds without any change in any image while the state moves, or without any motion at all.
FROZEN_S = 1.0
STILL_SHARE = 0.9
# Share of one camera's points that another must see through: up to 0.2 at the edges of right poses, measured in a
# simulator at 64 x 64, and 0.35 to 0.6 where a pose is 3 cm off.
CONTRADICTION_WARNING = 0.3
REPROJECTION_FRAMES = 3
REPROJECTION_PIXELS = 4000
REPROJECTION_TOLERANCE = 0.03
MOST_POINTS_MISSED = 0.9


@dataclass(frozen=True)
class Finding:
    """Something wrong, where it is, and how it can be mended; `episode` is None where it is about the whole dataset."""

    check: str
    severity: Severity
    told: str
    mend: str
    episode: int | None = None


@dataclass(frozen=True)
class Recorded:
    """An episode, with what its rows say of themselves, and what it should be."""

    episode: Episode
    timestamps_s: Float[np.ndarray, " T"]
    frame_index: Int[np.ndarray, " T"]
    spec: DatasetSpec
    robot: Embodiment | None

    @property
    def frozen_rows(self) -> int:
        return max(2, round(FROZEN_S * self.spec.fps))


Told = Iterator[tuple[Severity, str, str]]


def timestamps(recorded: Recorded) -> Told:
    """Rows are numbered from 0 on, and evenly apart in time."""
    count = recorded.episode.length
    if not np.array_equal(recorded.frame_index, np.arange(count)):
        yield "error", "frame_index does not count 0, 1, 2, ...", "record or import the episode again"
    apart = np.abs(recorded.timestamps_s - np.arange(count) / recorded.spec.fps)
    if apart.max() > TIMESTAMP_TOLERANCE_S:
        row = int(apart.argmax())
        told = f"row {row} is {apart[row] * 1e3:.2f} ms off an even {recorded.spec.fps} rows a second"
        yield "error", told, "resample the recording to an even rate, or correct `fps`"


def numbers(recorded: Recorded) -> Told:
    """States and actions are finite and move."""
    for name in ("proprio", "actions"):
        values = getattr(recorded.episode, name)
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            yield "error", f"{name} is not finite in row {row}, column {column}", "leave the episode out, or mend it"
        elif np.ptp(values, axis=0).max(initial=0) == 0:
            yield "warning", f"{name} is the same in all rows", "check that this was recorded"


def instruction(recorded: Recorded) -> Told:
    texts = recorded.episode.instructions
    if not texts or any(not text.strip() for text in texts):
        yield "error", "an instruction is empty", "import again with --instruction, or mend meta/tasks"


def quaternions(recorded: Recorded) -> Told:
    """Quaternions have length 1 and, as everywhere here, w >= 0."""
    if recorded.robot is None:
        return
    for name, values in (("proprio", recorded.episode.proprio), ("action", recorded.episode.actions)):
        vector = getattr(recorded.robot, name)
        picked = values[:, vector.columns_in(getattr(recorded.spec, name))]
        for part in vector.parts:
            if part.kind != "quaternion":
                continue
            rows = picked[:, vector.slice(part.name)]
            off = np.abs(np.linalg.norm(rows, axis=1) - 1)
            if off.max() > UNIT_TOLERANCE:
                told = f"{part.name} has length {1 + off.max():.4f} in row {off.argmax()}, not 1"
                yield "error", told, "correct the part's kind or columns in meta/embodiment.yaml, or the recording"
            elif rows[:, 0].min() < -UNIT_TOLERANCE:
                told = f"{part.name} has w < 0 in row {rows[:, 0].argmin()}"
                yield "warning", told, "is it wxyz? A sign that jumps is hard to learn: make w >= 0"


def depth(recorded: Recorded) -> Told:
    """Depth is there, varies, and lies within the range that it is stored in."""
    for camera in recorded.spec.cameras:
        if camera.depth is None:
            continue
        values = recorded.episode.depth_m[camera.name]
        known = values > 0
        if not known.any():
            yield "warning", f"camera {camera.name!r} has no depth in any pixel", "it carries no loss; was it recorded?"
            continue
        if (holes := 1 - known.mean()) > HOLES_WARNING:
            yield "warning", f"camera {camera.name!r}: {holes:.0%} of its depth is unknown", "look at the pictures"
        nearest = camera.depth.decode(np.array([1], np.uint16))[0]
        farthest = camera.depth.decode(np.array([DEPTH_CODES], np.uint16))[0]
        clipped = (values[known] <= nearest).mean() + (values[known] >= farthest).mean()
        if clipped > 0.2:
            ends = f"{nearest:.2f} .. {farthest:.2f} m"
            told = f"camera {camera.name!r}: {clipped:.0%} of its depth stands at an end of {ends}"
            yield "warning", told, "was it recorded in another unit, such as millimetres?"
        if np.ptp(values[known]) == 0:
            yield "warning", f"camera {camera.name!r}: all depth is {values[known][0]:.3f} m", "was it recorded?"


def calibration(recorded: Recorded) -> Told:
    """Intrinsics are those of a camera with this image, and poses are rigid."""
    for camera in recorded.spec.cameras:
        if not camera.calibrated:
            continue
        K = recorded.episode.intrinsics[camera.name]
        poses = recorded.episode.T_base_cam[camera.name]
        if not (np.isfinite(K).all() and np.isfinite(poses).all()):
            told = f"camera {camera.name!r}: intrinsics or T_base_cam hold NaN"
            yield "error", told, "leave the episode out, or mend it"
            continue
        focal, centre = K[:, [0, 1], [0, 1]], K[:, :2, 2]
        low, high = (share * camera.width for share in FOCAL_RANGE)
        if focal.min() < low or focal.max() > high or not np.allclose(K[:, 2], [0, 0, 1]):
            told = f"camera {camera.name!r} has a focal length of {focal[0].round(1)} px at a width of {camera.width}"
            yield "error", told, "give intrinsics in pixels of this image, not of the sensor or of another size"
        elif (centre < 0).any() or (centre > [camera.width, camera.height]).any():
            told = f"camera {camera.name!r} has its centre at {centre[0].round(1)}, outside of the image"
            yield "error", told, "did cropping or resizing not move the intrinsics?"
        rotation = poses[:, :3, :3]
        skew = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max()
        if skew > RIGID_TOLERANCE or (np.linalg.det(rotation) < 0).any() or not np.allclose(poses[:, 3], [0, 0, 0, 1]):
            told = f"camera {camera.name!r}: T_base_cam is no rigid motion (off by {skew:.4f})"
            yield "error", told, "a pose is a rotation and a shift: no scale, no mirror image"


def reprojection(recorded: Recorded) -> Told:
    """What one camera measures in the open, the others do not see through: no depth was fitted to make it so."""
    measured = [c for c in recorded.spec.cameras if c.depth and c.calibrated and c.depth.scale == "metric"]
    if len(measured) < 2:
        return
    rows = np.linspace(0, recorded.episode.length - 1, REPROJECTION_FRAMES).astype(int)
    met = set()
    for one, other in permutations([camera.name for camera in measured], 2):
        through = [contradiction(recorded.episode, row, one, other) for row in rows]
        seen = [share for share in through if share is not None]
        met |= {one, other} if seen else set()
        if seen and np.median(seen) > CONTRADICTION_WARNING:
            told = f"camera {other!r} looks through {np.median(seen):.0%} of what {one!r} measures"
            yield "warning", told, "check intrinsics, poses (T_base_cam, OpenCV axes) and the unit of depth of both"
    for camera in measured:
        if camera.name not in met:
            told = f"camera {camera.name!r} sees nothing that another camera sees"
            yield "warning", told, "is T_base_cam camera to base, in OpenCV axes (x right, y down, z forward)?"


def contradiction(episode: Episode, row: int, one: str, other: str) -> float | None:
    """Share of a camera's points in another's view that lie clearly in front of what that one measures there.

    A point behind is hidden, which is no contradiction. None if too few points are in view.
    """
    depth_m = episode.depth_m[one][row]
    points = unproject(depth_m, episode.intrinsics[one][row], episode.T_base_cam[one][row])[depth_m > 0]
    points = points[:: max(1, len(points) // REPROJECTION_PIXELS)]
    target = episode.depth_m[other][row]
    height, width = target.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels, z = project(points, episode.intrinsics[other][row], episode.T_base_cam[other][row])
        inside = (z > 0) & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
    if inside.sum() < (1 - MOST_POINTS_MISSED) * REPROJECTION_PIXELS:
        return None
    column, line = pixels[inside].astype(int).T
    there = target[line, column]
    known = there > 0
    if not known.any():
        return None
    return float((z[inside][known] < (1 - REPROJECTION_TOLERANCE) * there[known]).mean())


def frozen(recorded: Recorded) -> Told:
    """No camera stands still while the robot moves, and the robot moves at all."""
    moving = np.abs(np.diff(recorded.episode.proprio, axis=0)).max(axis=1, initial=0) > 1e-6
    if len(moving) and (still := 1 - moving.mean()) > STILL_SHARE:
        yield "warning", f"the state stands still in {still:.0%} of the rows", "trim the recording"
    for camera in recorded.spec.camera_names:
        images = recorded.episode.rgb[camera]
        same = np.array([np.array_equal(a, b) for a, b in zip(images[:-1], images[1:], strict=True)], bool)
        longest = longest_run(same & moving)
        if longest >= recorded.frozen_rows:
            told = f"camera {camera!r} shows one image for {longest + 1} rows while the state moves"
            yield "warning", told, "the camera stalled: leave the episode out, or record it again"


def longest_run(values: np.ndarray) -> int:
    """Length of the longest run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], values, [False]]).astype(int)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


CHECKS: dict[str, Callable[[Recorded], Told]] = {
    "timestamps": timestamps,
    "numbers": numbers,
    "instruction": instruction,
    "quaternions": quaternions,
    "depth": depth,
    "calibration": calibration,
    "reprojection": reprojection,
    "frozen": frozen,
}
