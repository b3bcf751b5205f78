"""LeRobotDataset v3.0: used where it is. Its tables and videos are linked; only what describes them is copied."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xwam.core.embodiment import Embodiment
from xwam.core.files import read_json, write_atomically, write_json
from xwam.data.importers.draft import draft_embodiment, draft_remarks
from xwam.data.importers.proof import claims_of_names
from xwam.data.importers.source import ImportSettings
from xwam.data.info import described_robot, load_info, spec_of
from xwam.data.layout import (
    EMBODIMENT_PATH,
    EPISODES_PATH,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    DatasetSpec,
    depth_key,
    extrinsics_key,
    intrinsics_key,
    rgb_key,
)

NAME = "lerobot_v30"
# How an older version becomes one that can be read; v2.0 and v2.1 are a format of their own here.
CONVERTERS = {"v1.": "convert_dataset_v1_to_v2.py"}


def recognises(root: Path) -> bool:
    """Also datasets of versions that cannot be read, for `open_source` to say how to convert them."""
    path = root / INFO_PATH
    return path.is_file() and read_json(path).get("codebase_version", "v2.1") not in ("v2.0", "v2.1")


def open_source(root: Path, settings: ImportSettings) -> "LinkedDataset":
    return LinkedDataset(root, settings)


class LinkedDataset:
    """A dataset of LeRobot's, seen through what the settings keep of it; see `LinkedSource`."""

    def __init__(self, root: Path, settings: ImportSettings):
        self._root, self._settings = root, settings
        info = _readable_info(root)
        self._new_keys = {key: f"{rgb_key('')}{key.rpartition('.')[2]}" for key in _nameless_cameras(info)}
        info["features"] = {self._new_keys.get(key, key): feature for key, feature in info["features"].items()}
        whole = spec_of(info)
        self._info = info | {"features": _kept(info["features"], whole, settings, root)}
        self.spec = spec_of(self._info)
        if not self.spec.cameras:
            raise ValueError(f"{root / INFO_PATH} lists no video of a camera: record one, or choose other --cameras")
        if settings.fps not in (None, self.spec.fps):
            raise ValueError(f"{root} was recorded at {self.spec.fps} rows a second, not {settings.fps}: omit --fps")
        self.embodiment, self.assumptions = self._robot(whole)
        self.claims = claims_of_names(self.embodiment)

    def _robot(self, whole: DatasetSpec) -> tuple[Embodiment, dict[str, str]]:
        """The robot of the recording's own file, if it has one, else a draft; and what is assumed of it."""
        robot = described_robot(self._root, whole)
        if robot is not None:
            cameras = tuple(camera for camera in robot.cameras if camera.name in self.spec.camera_names)
            return robot.model_copy(update={"cameras": cameras}), {"robot": "as its own meta/embodiment.yaml says"}
        stats = self._root / STATS_PATH
        robot = draft_embodiment(self.spec, read_json(stats) if stats.exists() else None)
        return robot, draft_remarks(robot)

    def link_into(self, dataset: Path) -> None:
        """Copies what describes the dataset, and links to the rest by absolute paths."""
        shutil.rmtree(dataset, ignore_errors=True)  # a link that was begun and left: nothing in it is of worth
        hidden = shutil.ignore_patterns(".*", "episodes")
        shutil.copytree(self._root / "meta", dataset / "meta", ignore=hidden)
        if self._settings.cameras is not None:
            (dataset / EMBODIMENT_PATH).unlink(missing_ok=True)
        write_json(dataset / INFO_PATH, self._info)
        self._copy_episodes(dataset)
        _link(self._root / "data", dataset / "data")
        for key, feature in self._info["features"].items():
            if feature["dtype"] == "video":
                old = {new: old for old, new in self._new_keys.items()}.get(key, key)
                _link(self._root / "videos" / old, dataset / "videos" / key)

    def _copy_episodes(self, dataset: Path) -> None:
        """The episodes' lines, with an instruction each and cameras by their new names."""
        episodes = Path(EPISODES_PATH).parent.parent
        for path in sorted((self._root / episodes).glob("*/*.parquet")):
            table = _renamed(_table(path), self._new_keys)
            if "tasks" not in table.column_names:  # LeRobot's converter from images to videos forgets it
                table = table.append_column("tasks", self._tasks_of_rows(table, path))
            table = _instructed(table, self._settings.instruction, path)
            write_atomically(
                dataset / path.relative_to(self._root),
                lambda file, table=table: pq.write_table(table, file),
            )

    def _tasks_of_rows(self, table: pa.Table, path: Path) -> pa.Array:
        """The tasks of each episode by its rows' task_index, in the order in which they come."""
        wanted = ("episode_index", "data/chunk_index", "data/file_index")
        if missing := [name for name in wanted if name not in table.column_names]:
            raise ValueError(f"{path} lacks the columns {missing}: copy it again")
        numbers, chunks, files = (table.column(name).to_pylist() for name in wanted)
        listed = _table(self._root / TASKS_PATH)
        names = {row["task_index"]: next(v for v in row.values() if isinstance(v, str)) for row in listed.to_pylist()}
        said: dict[int, dict[str, None]] = {number: {} for number in numbers}
        for chunk, file in sorted(set(zip(chunks, files, strict=True))):
            rows = _table(self._root / self._info["data_path"].format(chunk_index=chunk, file_index=file))
            pairs = zip(rows.column("episode_index").to_pylist(), rows.column("task_index").to_pylist(), strict=True)
            for number, task in dict.fromkeys(pairs):
                if number in said and task in names:
                    said[number][names[task]] = None
        return pa.array([list(said[number]) for number in numbers], pa.list_(pa.string()))


def _readable_info(root: Path) -> dict:
    """meta/info.json of a dataset that can be linked, or a ValueError that says how to convert it."""
    path = root / INFO_PATH
    version = str(read_json(path).get("codebase_version")) if path.exists() else ""
    for old, converter in CONVERTERS.items():
        if version.startswith(old):
            raise ValueError(f"{path} is of version {version}: make it v2.0 with LeRobot's {converter}, then import it")
    info = load_info(root)
    for key, start in (("data_path", "data/"), ("video_path", "videos/{video_key}/")):
        if not info[key].startswith(start):
            raise ValueError(f"{path}: {key} is {info[key]!r}, must begin with {start!r}: arrange the files so")
    return info


def _nameless_cameras(info: dict) -> list[str]:
    """Videos whose key is not observation.images.<camera>, such as observation.image of datasets with one camera."""
    return [
        key
        for key, feature in info["features"].items()
        if feature["dtype"] == "video" and not key.startswith(rgb_key(""))
    ]


def _kept(features: dict, spec: DatasetSpec, settings: ImportSettings, root: Path) -> dict:
    """The features without the cameras and the depth that the settings leave out."""
    chosen = spec.camera_names if settings.cameras is None else settings.cameras
    if unknown := [name for name in chosen if name not in spec.camera_names]:
        raise ValueError(f"{root} has no camera {unknown[0]!r}: choose --cameras from {list(spec.camera_names)}")
    dropped: set[str] = set()
    for camera in spec.cameras:
        if camera.name not in chosen:
            keys = (rgb_key, depth_key, intrinsics_key, extrinsics_key)
            dropped |= {key(camera.name) for key in keys}
        elif camera.depth and not settings.depth:
            dropped.add(depth_key(camera.name))
    return {key: feature for key, feature in features.items() if key not in dropped}


def _table(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}): copy it again") from error


def _renamed(table: pa.Table, new_keys: dict[str, str]) -> pa.Table:
    """The same table with the cameras' new names in the names of its columns `videos/<key>/...`."""
    names = []
    for name in table.column_names:
        parts = name.split("/")
        parts[1:2] = [new_keys.get(part, part) for part in parts[1:2]]
        names.append("/".join(parts))
    return table.rename_columns(names)


def _instructed(table: pa.Table, instruction: str | None, path: Path) -> pa.Table:
    """The same table where each episode has an instruction: its own, or else the given one."""
    said = [[text for text in texts or () if text and text.strip()] for texts in table.column("tasks").to_pylist()]
    if not all(said) and not (instruction and instruction.strip()):
        raise ValueError(f"{path}: {said.count([])} episodes have no instruction: give one with --instruction")
    filled = pa.array([texts or [instruction] for texts in said], pa.list_(pa.string()))
    return table.set_column(table.column_names.index("tasks"), "tasks", filled)


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(target.resolve(strict=True), link, target_is_directory=True)
    except FileNotFoundError as error:
        raise ValueError(f"{target} is missing: copy the dataset again") from error
    except OSError as error:
        raise ValueError(f"{link.parent} cannot hold links ({error}): choose a destination on another disk") from error
