"""LeRobotDataset v2.1 and v2.0: a table and a video of each camera for every episode.

meta/info.json, episodes.jsonl, tasks.jsonl           what is in it, a line an episode, a line a task
data/chunk-000/episode_000000.parquet                 a row a frame
videos/chunk-000/<feature>/episode_000000.mp4         a frame a row
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from xwam.core.embodiment import Embodiment
from xwam.core.files import read_json
from xwam.data.episodes import Episode
from xwam.data.importers.draft import draft_embodiment, draft_remarks
from xwam.data.importers.lerobot_features import Contents, contents_of
from xwam.data.importers.lerobot_media import decode_images, depth_frames, rgb_frames
from xwam.data.importers.metadata import entry, instructions_of
from xwam.data.importers.proof import claims_of_names
from xwam.data.importers.source import ImportSettings
from xwam.data.info import described_robot, path_template
from xwam.data.layout import EMBODIMENT_PATH, INFO_PATH, DatasetSpec, extrinsics_key, intrinsics_key

NAME = "lerobot_v21"
VERSIONS = ("v2.0", "v2.1")
EPISODES_PATH, TASKS_PATH = "meta/episodes.jsonl", "meta/tasks.jsonl"
# Float32 tells times to half a millisecond after an hour; rows of another rate are soon further off.
TIMESTAMP_TOLERANCE_S = 1e-3


def recognises(root: Path) -> bool:
    path = root / INFO_PATH
    return path.is_file() and read_json(path).get("codebase_version") in VERSIONS


def open_source(root: Path, settings: ImportSettings) -> "LeRobotV21":
    return LeRobotV21(root, settings)


@dataclass(frozen=True)
class _Line:
    """A line of meta/episodes.jsonl; the last three are of our own writing."""

    number: int
    length: int
    tasks: tuple[str, ...]
    environment: str = ""
    seed: int | None = None
    success: bool | None = None


class LeRobotV21:
    """A dataset of this layout; see `Source`."""

    def __init__(self, root: Path, settings: ImportSettings):
        self._root, self._settings = root, settings
        info_path = root / INFO_PATH
        info = read_json(info_path)
        if info.get("codebase_version") not in VERSIONS:
            raise ValueError(f"{info_path}: codebase_version {info.get('codebase_version')!r} is none of {VERSIONS}")
        self._contents: Contents = contents_of(info, settings, info_path)
        self.spec = self._contents.spec
        self._data_path = path_template(info, "data_path", ("episode_chunk", "episode_index"), info_path)
        if set(self._contents.rgb.values()) - self._contents.in_tables:
            fields = ("episode_chunk", "episode_index", "video_key")
            self._video_path = path_template(info, "video_path", fields, info_path)
        self._chunk = entry(info, "chunks_size", int, info_path)
        self._tasks = _load_tasks(root / TASKS_PATH)
        self._lines = _load_episodes(root / EPISODES_PATH, entry(info, "total_episodes", int, info_path))
        if self._chunk < 1:
            raise ValueError(f"{info_path}: chunks_size is {self._chunk}: correct it, most datasets have 1000")
        whole = contents_of(info, settings.model_copy(update={"cameras": None}), info_path).spec
        self.embodiment, robot_remarks = self._robot(whole)
        self.assumptions = robot_remarks | self._contents.remarks
        self.claims = claims_of_names(self.embodiment)

    def __len__(self) -> int:
        return len(self._lines)

    def label(self, index: int) -> str:
        return str(self._table_path(self._lines[index]))

    def episode(self, index: int) -> Episode:
        line, contents = self._lines[index], self._contents
        path = self._root / self._table_path(line)
        table = _read_table(path, [*contents.columns, "timestamp", *contents.in_tables])
        if len(table) != line.length:
            raise ValueError(f"{path} has {len(table)} rows, {EPISODES_PATH} tells of {line.length}: copy it again")
        _check_rows(table, line, self.spec.fps, path)
        numbers = {key: _numbers(table, key, contents.shapes[key], path) for key in contents.columns}
        calibrated = [camera.name for camera in self.spec.cameras if camera.calibrated]
        return Episode(
            rgb={camera.name: self._rgb(camera.name, table, line) for camera in self.spec.cameras},
            depth_m={name: self._depth_m(name, line) for name in contents.depth},
            intrinsics={name: numbers[intrinsics_key(name)].astype(np.float64) for name in calibrated},
            T_base_cam={name: numbers[extrinsics_key(name)].astype(np.float64) for name in calibrated},
            proprio=np.concatenate([numbers[key] for key in contents.proprio], axis=1),
            actions=numbers[contents.action],
            instructions=self._instructions(table, line, path),
            environment=line.environment,
            seed=line.seed,
            success=line.success,
        )

    def _robot(self, whole: DatasetSpec) -> tuple[Embodiment, dict[str, str]]:
        """The robot of the recording's own file, if it has one, else a draft; and what is assumed of it."""
        robot = described_robot(self._root, whole)
        if robot is None:
            robot = draft_embodiment(self.spec)
            return robot, draft_remarks(robot)
        cameras = tuple(camera for camera in robot.cameras if camera.name in self.spec.camera_names)
        return robot.model_copy(update={"cameras": cameras}), {"robot": f"as its own {EMBODIMENT_PATH} says"}

    def _table_path(self, line: _Line) -> str:
        return self._data_path.format(episode_chunk=line.number // self._chunk, episode_index=line.number)

    def _video(self, key: str, line: _Line) -> Path:
        place = {"episode_chunk": line.number // self._chunk, "episode_index": line.number}
        return self._root / self._video_path.format(video_key=key, **place)

    def _rgb(self, name: str, table: pa.Table, line: _Line) -> np.ndarray:
        key, camera = self._contents.rgb[name], self.spec.camera(name)
        size = camera.height, camera.width
        if key not in self._contents.in_tables:
            return rgb_frames(self._video(key, line), len(table), size, self.spec.fps)
        where = f"{self._root / self._table_path(line)}: {key}"
        column = table.column(key).combine_chunks()
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.field("bytes")
        if not pa.types.is_binary(column.type):
            raise ValueError(f"{where} is of {column.type}, needs the bytes of PNG or JPEG files: record videos")
        return decode_images(column.to_pylist(), size, where)

    def _depth_m(self, name: str, line: _Line) -> np.ndarray:
        (key, codes), camera = self._contents.depth[name], self.spec.camera(name)
        return depth_frames(self._video(key, line), line.length, (camera.height, camera.width), self.spec.fps, codes)

    def _instructions(self, table: pa.Table, line: _Line, path: Path) -> tuple[str, ...]:
        """Those of the rows in order, for an episode may change its task; then others that its line lists."""
        said = []
        if "task_index" in table.column_names:
            for number in dict.fromkeys(table.column("task_index").to_pylist()):
                if number not in self._tasks:
                    raise ValueError(f"{path} has task_index {number}, {TASKS_PATH} has no such line: complete it")
                said.append(self._tasks[number])
        return instructions_of([*said, *line.tasks], self._settings, path)


# ---- descriptions ------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[tuple[dict[str, Any], str]]:
    """The objects of a file with one on each line, and where each is."""
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): copy the dataset again") from error
    found = []
    for number, text in enumerate(texts, 1):
        where = f"{path}, line {number}"
        if text.strip():
            try:
                content = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{where} is no JSON ({error}): mend it, or copy the dataset again") from error
            if not isinstance(content, dict):
                raise ValueError(f"{where} is {text[:60]!r}, no JSON object: mend it, or copy the dataset again")
            found.append((content, where))
    return found


def _load_tasks(path: Path) -> dict[int, str]:
    tasks: dict[int, str] = {}
    for content, where in _lines(path):
        number, text = entry(content, "task_index", int, where), entry(content, "task", str, where)
        if tasks.get(number, text) != text:
            raise ValueError(f"{where}: task_index {number} was {tasks[number]!r} before: number tasks apart")
        tasks[number] = text
    return tasks


def _load_episodes(path: Path, promised: int) -> list[_Line]:
    found: dict[int, _Line] = {}
    for content, where in _lines(path):
        number, length = entry(content, "episode_index", int, where), entry(content, "length", int, where)
        if number in found:
            raise ValueError(f"{where}: episode_index {number} comes a second time: number episodes apart")
        if number < 0 or length < 1:
            raise ValueError(f"{where}: episode_index {number} with length {length}: mend it, or leave it out")
        tasks = content.get("tasks", ())
        found[number] = _Line(number, length, tuple(tasks) if isinstance(tasks, list) else (tasks,), **_own(content))
    if len(found) != promised:
        raise ValueError(f"{path} lists {len(found)} episodes, {INFO_PATH} counts {promised}: copy them again")
    return [found[number] for number in sorted(found)]


def _own(content: Mapping[str, Any]) -> dict[str, Any]:
    """What `xwam export` adds to a line."""
    kinds = {"environment": str, "seed": int, "success": bool}
    return {name: content[name] for name, kind in kinds.items() if isinstance(content.get(name), kind)}


# ---- tables ------------------------------------------------------------------------------------------------------


def _read_table(path: Path, wanted: list[str]) -> pa.Table:
    """These columns, and the numbers of episode and task if there are such."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy the dataset again, or leave the episode out")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in wanted if name not in names]:
                raise ValueError(f"{path} lacks the columns {missing} of {INFO_PATH}: copy it again")
            return file.read([*wanted, *(name for name in ("episode_index", "task_index") if name in names)])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}): copy it again") from error


def _check_rows(table: pa.Table, line: _Line, fps: int, path: Path) -> None:
    """Whether the rows are those of this episode, and evenly spaced in time."""
    if "episode_index" in table.column_names:
        others = set(table.column("episode_index").to_pylist()) - {line.number}
        if others:
            raise ValueError(f"{path} has rows of episode {min(others, key=str)}: copy it again, or leave it out")
    times_s = _numbers(table, "timestamp", (1,), path, np.float64)[:, 0]
    late = np.abs(times_s - times_s[0] - np.arange(len(times_s)) / fps)
    if late.max() > TIMESTAMP_TOLERANCE_S:
        row = int(np.argmax(late > TIMESTAMP_TOLERANCE_S))
        raise ValueError(
            f"{path}: row {row} is {times_s[row] - times_s[0]:.4f} s after the first, at {fps} rows a second it would "
            f"be {row / fps:.4f} s: resample the episode to even times, or leave it out"
        )


def _numbers(
    table: pa.Table, key: str, shape: tuple[int, ...], path: Path, dtype: type = np.float32
) -> Float32[np.ndarray, "T *shape"]:
    """A column of vectors or matrices, all of one shape and finite; a vector of one entry may be a plain number."""
    values, rows = table.column(key).combine_chunks(), len(table)
    for side in shape:
        if _is_list(values) and not values.null_count and pc.all(pc.equal(pc.list_value_length(values), side)).as_py():
            values = values.flatten()
        elif side != 1 or _is_list(values):
            raise ValueError(f"{path}: {key} is not of shape {shape} in every row: mend it, or correct {INFO_PATH}")
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise ValueError(f"{path}: {key} is of {values.type}, needs numbers: correct {INFO_PATH}")
    found = values.to_numpy(zero_copy_only=False).astype(dtype).reshape(rows, *shape)
    if not np.isfinite(found).all():
        row = int(np.argwhere(~np.isfinite(found))[0][0])
        raise ValueError(f"{path}: {key} holds NaN or infinity, first in row {row}: mend it, or leave the episode out")
    return found


def _is_list(values: pa.Array) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(kind(values.type) for kind in kinds)
