"""Recorded episodes: one in memory, and a folder of them on disk with random access to every frame."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.depth import StoredDepth
from xwam.core.embodiment import Embodiment
from xwam.core.video import VideoReader
from xwam.data.caches import ArrayCache, OpenReaders
from xwam.data.episode_index import EpisodeIndex, load_index
from xwam.data.info import described_robot, load_info, spec_of
from xwam.data.layout import INFO_PATH, DatasetSpec, StoredCamera, depth_key, extrinsics_key, intrinsics_key, rgb_key
from xwam.data.tables import read_row_group, row_group_bounds

# What is kept of the tables that were read last, and of where their row groups end.
COLUMN_BYTES, BOUND_BYTES = 64 << 20, 4 << 20
VECTOR_KEYS = ("observation.state", "action")


@dataclass(frozen=True)
class Views:
    """What the cameras saw in some frames, by camera; `depth_m` is 0 where unknown and may lack cameras."""

    rgb: dict[str, UInt8[np.ndarray, "T H W 3"]]
    depth_m: dict[str, Float[np.ndarray, "T H W"]]
    intrinsics: dict[str, Float[np.ndarray, "T 3 3"]]
    T_base_cam: dict[str, Float[np.ndarray, "T 4 4"]]


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of an episode without opening it; datasets recorded elsewhere lack the last three."""

    length: int
    instructions: tuple[str, ...]
    environment: str = ""
    seed: int | None = None
    success: bool | None = None


@dataclass(frozen=True)
class Episode(Views):
    """A whole recording: row t holds what was seen at time t and the action that was taken then."""

    proprio: Float[np.ndarray, "T Dp"]
    actions: Float[np.ndarray, "T Da"]
    instructions: tuple[str, ...]
    environment: str
    seed: int | None
    success: bool | None

    @property
    def length(self) -> int:
        return len(self.actions)

    def check(self, spec: DatasetSpec) -> None:
        """Raises a ValueError that names what keeps this episode out of a dataset of this kind."""
        if self.length < 2:
            raise ValueError(f"an episode of {self.length} rows: record at least 2")
        if not self.instructions or not all(isinstance(text, str) and text.strip() for text in self.instructions):
            raise ValueError(f"instructions {self.instructions!r}: give one or more that are not empty")
        if self.seed is not None and abs(self.seed) >= 1 << 63:
            raise ValueError(f"seed {self.seed}: give one of 64 bits, or none")
        if set(self.rgb) != set(spec.camera_names):
            raise ValueError(f"rgb is of cameras {sorted(self.rgb)}, the dataset's are {sorted(spec.camera_names)}")
        _check_array("proprio", self.proprio, (self.length, len(spec.proprio)))
        _check_array("actions", self.actions, (self.length, len(spec.action)))
        for camera in spec.cameras:
            size = (self.length, camera.height, camera.width)
            _check_image("rgb", self.rgb, camera.name, (*size, 3))
            if (dtype := self.rgb[camera.name].dtype) != np.uint8:
                raise ValueError(f"rgb of {camera.name!r} is {dtype}: convert it to uint8, 0 .. 255")
            if camera.depth:
                _check_image("depth_m", self.depth_m, camera.name, size)
                _check_depth(camera.name, self.depth_m[camera.name], camera.depth)
            if camera.calibrated:
                for name, side in (("intrinsics", 3), ("T_base_cam", 4)):
                    _check_image(name, getattr(self, name), camera.name, (self.length, side, side))
                    _check_array(f"{name} of {camera.name!r}", getattr(self, name)[camera.name])


def _check_image(name: str, arrays: dict[str, np.ndarray], camera: str, shape: tuple[int, ...]) -> None:
    if camera not in arrays:
        raise ValueError(f"{name} lacks camera {camera!r}: record it, or describe the dataset without it")
    if arrays[camera].shape != shape:
        raise ValueError(f"{name} of {camera!r} has shape {arrays[camera].shape}, needs {shape}: one a row of actions")


def _check_depth(camera: str, depth_m: Float[np.ndarray, "T H W"], stored: StoredDepth) -> None:
    if (depth_m < 0).any():
        row = int(np.argwhere(depth_m < 0)[0][0])
        raise ValueError(f"depth_m of {camera!r} is negative, first in row {row}: write 0 where depth is unknown")
    known = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    if known.size and not (known.max() >= stored.min_m and known.min() <= stored.max_m):
        told = f"depth_m of {camera!r} is {known.min():.4g} .. {known.max():.4g}, all of it out of"
        raise ValueError(f"{told} {stored.min_m:.4g} .. {stored.max_m:.4g} m: convert it to metres")


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...] | None = None) -> None:
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, the dataset needs {shape}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(f"{name} holds NaN or infinity, first in row {row}: mend the recording, or leave it out")


class EpisodeStore:
    """A dataset folder, opened once and read from any number of threads and processes; it can be pickled.

    Opening reads the index and looks that every file is there. What is in a file is checked when it is first read.
    """

    def __init__(self, root: str | Path, open_files: int = 128):
        self.root = Path(root)
        self._description = load_info(self.root)
        self.spec: DatasetSpec = spec_of(self._description)
        self.index: EpisodeIndex = load_index(self.root, self.spec.video_keys, self._description["total_episodes"])
        self._check_files()
        self._open_files = open_files
        self._videos = OpenReaders[Path, VideoReader](open_files)
        self._columns = ArrayCache[tuple[Path, int, str]](COLUMN_BYTES)
        self._bounds = ArrayCache[Path](BOUND_BYTES)

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict:
        return {"root": self.root, "open_files": self._open_files}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def info(self, episode: int) -> EpisodeInfo:
        index = self._index_of(episode)
        return EpisodeInfo(
            length=int(index.lengths[episode]),
            instructions=tuple(index.tasks[episode].as_py()),
            environment=index.environments[episode].as_py() or "",
            seed=index.seeds[episode].as_py(),
            success=index.successes[episode].as_py(),
        )

    def vectors(
        self, episode: int, robot: Embodiment | None = None
    ) -> tuple[Float[np.ndarray, "T Dp"], Float[np.ndarray, "T Da"]]:
        """Proprio and actions, in physical units; with `robot` the columns that it names, in its order."""
        read = self._read_columns(episode, VECTOR_KEYS)
        proprio, actions = (read[key].astype(np.float32).reshape(len(read[key]), -1) for key in VECTOR_KEYS)
        if robot is None:
            return proprio, actions
        spec = self.spec
        return proprio[:, robot.proprio.columns_in(spec.proprio)], actions[:, robot.action.columns_in(spec.action)]

    def embodiment(self) -> Embodiment | None:
        """The robot as the dataset describes it, if it does."""
        return described_robot(self.root, self.spec)

    def read(
        self, episode: int, frames: Sequence[int], cameras: Sequence[str] | None = None, depth: bool = True
    ) -> Views:
        """Frames of some cameras (all if None), in any order; cameras without depth or calibration are absent there."""
        length = int(self._index_of(episode).lengths[episode])
        rows = np.asarray(frames)
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= length:
            raise ValueError(f"frames {list(frames)} of episode {episode}: it has frames 0 .. {length - 1}")
        chosen = [self.spec.camera(name) for name in (self.spec.camera_names if cameras is None else cameras)]
        calibrated = [camera.name for camera in chosen if camera.calibrated]
        keys = {name: (intrinsics_key(name), extrinsics_key(name)) for name in calibrated}
        matrices = self._read_columns(episode, [key for pair in keys.values() for key in pair])
        rgb = _room(chosen, len(rows), (3,), np.uint8)
        depth_m = _room([camera for camera in chosen if depth and camera.depth], len(rows), (), np.float32)
        for camera in chosen:
            self._read_video(episode, camera, None, rows, rgb[camera.name])
            if camera.name in depth_m:
                self._read_video(episode, camera, camera.depth, rows, depth_m[camera.name])
        return Views(
            rgb=rgb,
            depth_m=depth_m,
            intrinsics={name: matrices[key][rows].astype(np.float64) for name, (key, _) in keys.items()},
            T_base_cam={name: matrices[key][rows].astype(np.float64) for name, (_, key) in keys.items()},
        )

    def read_all(self, episode: int) -> Episode:
        """A whole episode, decoded from front to back."""
        info = self.info(episode)
        views = self.read(episode, range(info.length))
        proprio, actions = self.vectors(episode)
        described = (info.instructions, info.environment, info.seed, info.success)
        return Episode(views.rgb, views.depth_m, views.intrinsics, views.T_base_cam, proprio, actions, *described)

    def files(self, episode: int, cameras: Sequence[str]) -> list[tuple[Path, float]]:
        """Where an episode lies: its table and first row there, then these cameras' videos, depth too, in seconds."""
        index = self._index_of(episode)
        chosen = [self.spec.camera(name) for name in cameras]
        keys = [rgb_key(camera.name) for camera in chosen] + [depth_key(c.name) for c in chosen if c.depth]
        table = self._data_path(*index.data.place(episode)), index.row_in_file(episode)
        paths = [self.video_path(key, *index.videos[key].place(episode)) for key in keys]
        return [table, *((path, float(index.from_s[key][episode])) for path, key in zip(paths, keys, strict=True))]

    def column(self, episode: int, key: str) -> np.ndarray:
        """A column's rows of an episode: (T, ...) float32, or int64 where it holds whole numbers; its own copy."""
        return self._read_columns(episode, [key])[key].copy()

    def _index_of(self, episode: int) -> EpisodeIndex:
        """The index, if it has this episode."""
        if not 0 <= episode < len(self.index):
            raise ValueError(f"episode {episode}: this dataset has episodes 0 .. {len(self.index) - 1}")
        return self.index

    def _read_video(
        self, episode: int, camera: StoredCamera, depth: StoredDepth | None, frames: np.ndarray, images: np.ndarray
    ) -> None:
        key = depth_key(camera.name) if depth else rgb_key(camera.name)
        path = self.video_path(key, *self.index.videos[key].place(episode))
        times_s = self.index.from_s[key][episode] + frames / self.spec.fps
        with self._videos.of(path, lambda: VideoReader(path, depth)) as reader:
            if reader.size != (camera.height, camera.width):
                told = (
                    f"{path} is {reader.size[0]} x {reader.size[1]}, {INFO_PATH} tells {camera.height} x {camera.width}"
                )
                raise ValueError(f"{told}: correct that, or copy the video again")
            reader.read(times_s, images)

    def _read_columns(self, episode: int, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns' rows of an episode, which others may be looking at too; row groups that were read last are kept."""
        index = self._index_of(episode)
        path = self._data_path(*index.data.place(episode))
        [bounds] = self._bounds.get([path], lambda _: [row_group_bounds(path)])
        start, length = index.row_in_file(episode), int(index.lengths[episode])
        if start + length > bounds[-1]:
            raise ValueError(f"{path} has {bounds[-1]} rows, episode {episode} needs {start + length}: copy it again")
        first, last = (np.searchsorted(bounds, [start, start + length - 1], side="right") - 1).tolist()
        parts = [self._row_group(path, group, keys) for group in range(first, last + 1)]
        start -= int(bounds[first])
        joined = (column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*parts, strict=True))
        return {key: column[start : start + length] for key, column in zip(keys, joined, strict=True)}

    def _row_group(self, path: Path, group: int, keys: Sequence[str]) -> list[np.ndarray]:
        def read(missing: list[tuple[Path, int, str]]) -> list[np.ndarray]:
            columns = read_row_group(path, group, [key for _, _, key in missing])
            for (_, _, key), column in zip(missing, columns, strict=True):
                self._check_shape(path, key, column.shape[1:])
            return columns

        return self._columns.get([(path, group, key) for key in keys], read)

    def _check_shape(self, path: Path, key: str, shape: tuple[int, ...]) -> None:
        """A vector of one entry may be a plain number, and a matrix a vector."""
        promised = self._description["features"].get(key, {}).get("shape")
        if promised is not None and prod(shape) != prod(promised):
            told = f"{path}: rows of {key} have shape {list(shape)}, {INFO_PATH} tells {promised}"
            raise ValueError(f"{told}: correct that, or copy the table again")

    def _data_path(self, chunk: int, file: int) -> Path:
        return self.root / self._description["data_path"].format(chunk_index=chunk, file_index=file)

    def video_path(self, key: str, chunk: int, file: int) -> Path:
        """Where the dataset has, or would have, a video file of this key."""
        named = {"video_key": key, "chunk_index": chunk, "file_index": file}
        return self.root / self._description["video_path"].format(**named)

    def _check_files(self) -> None:
        """Looks for every file, each once, with a listing a folder: quick for many thousands of files."""
        paths = [self._data_path(*place) for place in self.index.data.places.tolist()]
        for key, files in self.index.videos.items():
            paths += [self.video_path(key, *place) for place in files.places.tolist()]
        listings: dict[Path, set[str]] = {}
        for path in paths:
            if path.parent not in listings:
                listings[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
            if path.name not in listings[path.parent]:
                raise ValueError(f"{path} is missing: copy the dataset again, or record that shard anew")


def _room(
    cameras: Sequence[StoredCamera], frames: int, channels: tuple[int, ...], dtype: type
) -> dict[str, np.ndarray]:
    """An array for each camera's images; of cameras of one size they are parts of one, for `stacked` to find."""
    if len({(camera.height, camera.width) for camera in cameras}) == 1:
        together = np.empty((len(cameras), frames, cameras[0].height, cameras[0].width, *channels), dtype)
        return {camera.name: part for camera, part in zip(cameras, together, strict=True)}
    return {c.name: np.empty((frames, c.height, c.width, *channels), dtype) for c in cameras}
