"""Recording a dataset: shards, written apart in as many processes as you like, which `finalise` joins.

A shard is some consecutive episodes: one video a camera, one table of rows, and a sidecar that is put in place last.
So a shard exists wholly or not at all, whenever the process is killed; what it leaves behind is overwritten next time.
A shard without episodes exists too: it says that nobody need try these again.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xwam.core.embodiment import Embodiment
from xwam.core.embodiment_file import embodiment_text
from xwam.core.files import write_atomically, write_json
from xwam.core.video import VideoWriter
from xwam.data.episodes import Episode
from xwam.data.info import features
from xwam.data.layout import (
    DATA_PATH,
    EMBODIMENT_PATH,
    SHARDS_PATH,
    VIDEO_PATH,
    DatasetSpec,
    depth_key,
    extrinsics_key,
    intrinsics_key,
    rgb_key,
    shard_path,
    sidecar_path,
)
from xwam.data.statistics import summarise, summarise_images


def published(root: str | Path) -> list[int]:
    """Shards that are complete, in order."""
    sidecars = (Path(root) / SHARDS_PATH).glob("shard-[0-9]*.json")
    return sorted(int(path.stem.removeprefix("shard-")) for path in sidecars)


def describe_robot(root: Path, robot: Embodiment, remarks: tuple[str, ...] = ()) -> None:
    """Writes meta/embodiment.yaml, unless it is there already: people edit it."""
    path = root / EMBODIMENT_PATH
    if not path.exists():
        write_atomically(path, lambda file: file.write_text(embodiment_text(robot, remarks)))


class ShardWriter:
    """Writes one shard: `with ShardWriter(root, spec, 3) as shard: shard.add(episode)`. One process a shard."""

    def __init__(self, root: str | Path, spec: DatasetSpec, shard: int):
        self.root, self.spec, self.shard = Path(root), spec, shard
        self._sidecar = self.root / sidecar_path(shard)
        if self._sidecar.exists():
            raise ValueError(f"shard {shard} of {root} is already recorded: skip it, or remove {self._sidecar}")
        self._episodes: list[dict] = []
        self._frames = 0
        self._videos: dict[str, VideoWriter] = {}
        self._table: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True, exist_ok=True)
        prefix = f".shard-{self.shard:05d}-"
        for left_behind in self.root.glob(f"{prefix}*"):
            shutil.rmtree(left_behind)
        self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self.root))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._publish()
            elif isinstance(error, OSError):
                raise error
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
            advice = f"disk full in shard {self.shard}: free some space and start again; finished shards are kept"
            raise OSError(errno.ENOSPC, advice, str(self.root)) from failure
        finally:
            for video in self._videos.values():
                video.abort()
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, episode: Episode) -> None:
        """Appends an episode, if it fits the dataset."""
        episode.check(self.spec)
        if self._table is None:
            self._open()
        images = _images(episode, self.spec)
        for key, frames in images.items():
            self._videos[key].add(frames)
        columns = _columns(episode, self.spec)
        self._table.write_table(_table(columns, self.spec, len(self._episodes), self._frames))
        stats = {key: summarise_images(frames) for key, frames in images.items()}
        stats |= {key: summarise(columns[key]) for key in ("observation.state", "action")}
        described = {name: getattr(episode, name) for name in ("length", "environment", "seed", "success")}
        described |= {"tasks": list(episode.instructions), "from_frame": self._frames, "stats": stats}
        self._episodes.append(described)
        self._frames += episode.length

    def _open(self) -> None:
        for camera in self.spec.cameras:
            size = (camera.height, camera.width, self.spec.fps)
            self._videos[rgb_key(camera.name)] = VideoWriter(self._video_file(rgb_key(camera.name)), *size)
            if camera.depth:
                key = depth_key(camera.name)
                self._videos[key] = VideoWriter(self._video_file(key), *size, depth=camera.depth)
        path = self._folder / shard_path(DATA_PATH, self.shard)
        path.parent.mkdir(parents=True)
        self._table = pq.ParquetWriter(path, _schema(self.spec))

    def _video_file(self, key: str) -> Path:
        return self._folder / shard_path(VIDEO_PATH, self.shard, video_key=key)

    def _publish(self) -> None:
        """Moves the files to their places; the sidecar comes last and makes them count."""
        if self._table is not None:
            self._table.close()
        while self._videos:
            self._videos.popitem()[1].close()
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        sidecar = self._folder / self._sidecar.name
        write_json(sidecar, {"spec": self.spec.model_dump(mode="json"), "episodes": self._episodes})
        for path in files:
            _move(path, self.root / path.relative_to(self._folder))
        _move(sidecar, self._sidecar)


def _move(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, destination)


def _images(episode: Episode, spec: DatasetSpec) -> dict[str, np.ndarray]:
    """Frames of each video."""
    images = {rgb_key(name): episode.rgb[name] for name in spec.camera_names}
    return images | {depth_key(c.name): episode.depth_m[c.name] for c in spec.cameras if c.depth}


def _columns(episode: Episode, spec: DatasetSpec) -> dict[str, np.ndarray]:
    """What is recorded as numbers in each row, but for its numbering."""
    columns = {"observation.state": episode.proprio, "action": episode.actions}
    for camera in spec.cameras:
        if camera.calibrated:
            columns[intrinsics_key(camera.name)] = episode.intrinsics[camera.name]
            columns[extrinsics_key(camera.name)] = episode.T_base_cam[camera.name]
    columns["timestamp"] = np.arange(episode.length) / spec.fps
    return {key: values.astype(np.float32) for key, values in columns.items()}


def _schema(spec: DatasetSpec) -> pa.Schema:
    kinds = {"float32": pa.float32(), "int64": pa.int64()}
    fields = []
    for key, feature in features(spec).items():
        if feature["dtype"] == "video":
            continue
        kind, shape = kinds[feature["dtype"]], feature["shape"]
        if len(shape) == 2:
            kind = pa.list_(pa.list_(kind))
        elif shape[0] > 1:
            kind = pa.list_(kind, shape[0])
        fields.append((key, kind))
    return pa.schema(fields)


def _table(columns: dict[str, np.ndarray], spec: DatasetSpec, episode: int, first: int) -> pa.Table:
    """An episode's rows, numbered within the shard until `finalise` knows those before it."""
    frame = np.arange(len(columns["action"]))
    content = columns | {"frame_index": frame, "index": frame + first}
    content |= {"episode_index": np.full_like(frame, episode), "task_index": np.zeros_like(frame)}
    # a vector of one entry is a plain number to readers
    content = {key: values[:, 0] if values.shape[1:] == (1,) else values for key, values in content.items()}
    schema = _schema(spec)
    return pa.table([pa.array(content[field.name].tolist(), field.type) for field in schema], schema=schema)
