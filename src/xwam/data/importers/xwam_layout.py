"""The layout in which X-WAM's training data is released: a JSON file an episode, videos beside it, a frame a row.

Proprio and actions are what the reference feeds its network, before normalisation: absolute poses in the base frame,
and either the controller's raw commands or the motion from each row's pose to the commanded one.

Depth is a grey video without a published metric formula. Its code c, 0 .. 255, which the reference feeds as
c / 127.5 - 1, is kept as "metres" of a nominal range 0.1 .. 5, so that the network sees the same number:
d = 1 / (c / 255 * (1 / 0.1 - 1 / 5) + 1 / 5), and back c = 255 * (1 / d - 1 / 5) / (1 / 0.1 - 1 / 5).
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from xwam.core.embodiment import Embodiment, VectorSpec
from xwam.core.files import read_json
from xwam.data.episodes import Episode
from xwam.data.importers.metadata import chosen_cameras, entry, instructions_of
from xwam.data.importers.released import (
    ACTION_WIDTH,
    PROPRIO_WIDTH,
    camera,
    command_parts,
    delta_parts,
    proprio_parts,
    robocasa,
    robotwin,
)
from xwam.data.importers.source import Claim, ImportSettings
from xwam.data.importers.xwam_media import DEPTH, depth_frames, frame_size, media_path, rgb_frames
from xwam.data.importers.xwam_vectors import arms_of, has_commands, vectors_of
from xwam.data.layout import DatasetSpec, StoredCamera

NAME = "xwam_layout"
EPISODES = "chunk-*/episode_*.json"
# RoboCasa's controller moves the hand by so much for a command of 1: metres, and radians.
COMMAND_SCALES = (0.05, 0.5)


def recognises(root: Path) -> bool:
    return next((root / "data").glob(EPISODES), None) is not None


def open_source(root: Path, settings: ImportSettings) -> "XWAMSource":
    return XWAMSource(root, settings)


@dataclass(frozen=True)
class View:
    """A camera's entry in an episode."""

    rgb: Path
    depth: Path | None
    start: int
    moves: bool


class XWAMSource:
    """A dataset's folder; see `xwam.data.importers.source.Source`."""

    def __init__(self, root: Path, settings: ImportSettings):
        self._root, self._settings = root, settings
        self._lengths = _lengths(root)
        self._paths = list(self._lengths)
        content, path = self._content(0)
        observed = entry(content, "observations", dict, path)
        names = chosen_cameras(sorted(observed), settings, path)
        views = {name: self._view(content, name, path) for name in names}
        self.arms, self.commanded = arms_of(content, path), has_commands(content, path)
        fps = _fps(content, names, settings, path)
        self.embodiment = _embodiment(self.arms, self.commanded, views, fps)
        self.spec = DatasetSpec(
            robot=self.embodiment.name,
            fps=fps,
            cameras=tuple(_stored_camera(name, view) for name, view in views.items()),
            proprio=self.embodiment.proprio.column_names,
            action=self.embodiment.action.column_names,
        )
        self.claims = tuple(claim for arm in _prefixes(self.arms) for claim in _claims(arm, self.commanded))
        self.assumptions = _assumptions(self.arms, self.commanded)

    def __len__(self) -> int:
        return len(self._paths)

    def label(self, index: int) -> str:
        return str(self._paths[index])

    def episode(self, index: int) -> Episode:
        content, path = self._content(index)
        rows = entry(content, "num_frames", int, path)
        self._check_kind(content, path)
        cameras = {stored: self._view(content, stored.name, path) for stored in self.spec.cameras}
        proprio, actions = vectors_of(content, rows, path)
        if self.spec.fps != (fps := _fps(content, self.spec.camera_names, self._settings, path)):
            raise ValueError(f"{path} has {fps} rows a second, the first episode {self.spec.fps}: import them apart")
        rgb, depth_m = {}, {}
        for stored, view in cameras.items():
            size = (stored.height, stored.width)
            rgb[stored.name] = rgb_frames(view.rgb, view.start, rows, size)
            if stored.depth:
                depth_m[stored.name] = depth_frames(view.depth, view.start, rows, size)
        return Episode(
            rgb=rgb,
            depth_m=depth_m,
            intrinsics={},
            T_base_cam={},
            proprio=proprio,
            actions=actions,
            instructions=instructions_of(content.get("instructions"), self._settings, path),
            environment=self.embodiment.name,
            seed=None,
            success=None,
        )

    def _content(self, index: int) -> tuple[dict[str, Any], Path]:
        path = self._paths[index]
        content, listed = read_json(path), self._lengths[path]
        if listed is not None and listed != entry(content, "num_frames", int, path):
            told = f"{path} has {content['num_frames']} frames, metadata.json lists {listed}"
            raise ValueError(f"{told}: remove metadata.json, or copy the episode again")
        return content, path

    def _view(self, content: dict[str, Any], name: str, path: Path) -> View:
        """A camera's entry, if its frames are as many as the episode's rows."""
        where = f"{path}: camera {name!r}"
        observed = entry(entry(content, "observations", dict, path), name, dict, path)
        rows = entry(content, "num_frames", int, path)
        start = entry(observed, "start", int, where) if "start" in observed else 0
        end = entry(observed, "end", int, where) if "end" in observed else start + rows
        if start < 0 or end - start < rows:
            raise ValueError(
                f"{where} has frames {start} .. {end}, fewer than num_frames {rows}: leave the episode out"
            )
        kind = entry(observed, "type", str, where)
        if kind not in ("static", "dynamic"):
            raise ValueError(f"{where} is of type {kind!r}: write 'static', or 'dynamic' where it rides on an arm")
        rgb = media_path(self._root, entry(observed, "rgb_path", str, where), where)
        depth = None
        if self._settings.depth:
            depth = media_path(self._root, entry(observed, "depth_path", str, where), where)
        return View(rgb, depth, start, kind == "dynamic")

    def _check_kind(self, content: dict[str, Any], path: Path) -> None:
        kind = (arms_of(content, path), has_commands(content, path))
        if kind != (self.arms, self.commanded):
            told = "arms or raw_actions differ from those of the first episode"
            raise ValueError(f"{path}: {told}, {self._paths[0]}: import each kind by itself")


def _lengths(root: Path) -> dict[Path, int | None]:
    """Episodes in order, each with the number of frames that metadata.json lists, if there is that file."""
    folder, index = root / "data", root / "metadata.json"
    if not index.exists():
        paths = sorted(folder.glob(EPISODES))
        if not paths:
            raise ValueError(f"{root} has no data/{EPISODES}: give the folder of a dataset in X-WAM's layout")
        return dict.fromkeys(paths)
    lengths = {}
    for key, length in read_json(index).items():
        relative = PurePosixPath(f"{key}.json")
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{index}: the episode {key!r} leads out of {folder}: name episodes below it")
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise ValueError(f"{index}: episode {key!r} has {length!r} frames: remove the file, or mend it")
        lengths[folder / relative] = length
    if not lengths:
        raise ValueError(f"{index} lists no episode: remove it, or mend it")
    return lengths


def _fps(content: dict[str, Any], names: tuple[str, ...], settings: ImportSettings, path: Path) -> int:
    """Rows a second: videos have a frame a row, so their rate is that of the actions."""
    if settings.fps is not None:
        return settings.fps
    observed = entry(content, "observations", dict, path)
    rates = {entry(observed[name], "fps", (int, float), f"{path}: camera {name!r}") for name in names}
    if len(rates) > 1:
        raise ValueError(f"{path}: the cameras have {sorted(rates)} frames a second: record all at one rate")
    rate = rates.pop()
    if not 1 <= rate < 1e4 or abs(rate - round(rate)) > 1e-3:
        raise ValueError(f"{path}: {rate} rows a second are no whole number: give the nearest with --fps")
    return round(rate)


def _stored_camera(name: str, view: View) -> StoredCamera:
    height, width = frame_size(view.rgb)
    return StoredCamera(name=name, height=height, width=width, depth=DEPTH if view.depth else None, calibrated=False)


def _prefixes(arms: tuple[str, ...]) -> tuple[str, ...]:
    """What the names of the arms' parts begin with: one arm alone needs no name."""
    return ("",) if len(arms) == 1 else tuple(f"{arm}_" for arm in arms)


def _embodiment(arms: tuple[str, ...], commanded: bool, views: dict[str, View], fps: int) -> Embodiment:
    """The robot, with the names, widths and hand-eye calibration of the released models where it is theirs."""
    known = next((robot for robot in (robocasa(), robotwin()) if robot.camera_names == tuple(views)), None)
    action_parts = command_parts if commanded else delta_parts
    mounted = {spec.name: spec for spec in known.cameras if views[spec.name].moves} if known and len(arms) == 1 else {}
    return Embodiment(
        name=known.name if known else NAME,
        cameras=tuple(mounted.get(name, camera(name)) for name in views),
        proprio=VectorSpec(
            parts=tuple(part for arm in _prefixes(arms) for part in proprio_parts(arm)), width=PROPRIO_WIDTH
        ),
        action=VectorSpec(
            parts=tuple(part for arm in _prefixes(arms) for part in action_parts(arm)), width=ACTION_WIDTH
        ),
        action_period_s=1 / fps,
        actions_per_frame=4,
    )


def _claims(arm: str, commanded: bool) -> tuple[Claim, ...]:
    metres, radians = COMMAND_SCALES if commanded else (1.0, 1.0)
    gripper = ("gripper_effort", "target") if commanded else ("gripper_delta", "delta")
    return (
        Claim(f"{arm}ee_delta_position", f"{arm}ee_position", "delta", scale=metres),
        Claim(f"{arm}ee_delta_rotation", f"{arm}ee_orientation", "delta", scale=radians),
        Claim(f"{arm}{gripper[0]}", f"{arm}gripper_opening", gripper[1]),
    )


def _assumptions(arms: tuple[str, ...], commanded: bool) -> dict[str, str]:
    commands = (
        "raw commands of a controller, of which 1 is 0.05 m and 0.5 rad in the base frame, as RoboCasa's is; "
        "the gripper's sign is turned, as the reference does, so that 1 opens"
    )
    moves = (
        "motion from each row's pose to the commanded one, in the base frame: difference of positions, rotation vector "
        "of R_commanded R_present^T; the gripper's is the change of its opening until the next row, 0 in the last"
    )
    return {
        "frames": f"poses of {' and '.join(arms)} are in the robot's base frame, with the reference's axes; no camera "
        "is calibrated",
        "units": "metres, rotation matrices, and a gripper that is 1 when fully open",
        "actions": commands if commanded else moves,
        "depth": "grey codes without a known formula, larger is nearer: relative",
        "images": "a frame a row from each camera's `start` on; row 0 is the top; views are ordered by name",
    }
