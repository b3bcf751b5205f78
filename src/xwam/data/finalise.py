"""From shards to a dataset: numbers the episodes through and writes what readers look at first."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xwam.core.files import read_json, write_atomically, write_json
from xwam.data.info import info_of
from xwam.data.layout import (
    CAMERAS_PATH,
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
    DatasetSpec,
    extrinsics_key,
    intrinsics_key,
    shard_path,
    sidecar_path,
)
from xwam.data.sketch import Sketch
from xwam.data.statistics import merge
from xwam.data.tables import opened
from xwam.data.writer import published

SIDECAR_KEYS = {"length", "tasks", "from_frame", "environment", "seed", "success", "stats"}
COUNTED = ("episode_index", "index", "task_index")


def finalise(root: str | Path) -> None:
    """Makes a dataset of all complete shards; may be repeated, also while more are being recorded.

    One shard's rows are in memory at a time. Statistics of vectors are made anew from all rows; those of images are
    merged from what the recorder saw of each episode, some pixels of some frames, and their quantiles approximate.
    """
    root = Path(root)
    spec, shards = _load_shards(root)
    tasks = list(dict.fromkeys(text for episodes in shards.values() for e in episodes for text in e["tasks"]))
    rows, vectors = [], {"observation.state": Sketch(spec.proprio), "action": Sketch(spec.action)}
    for shard, episodes in shards.items():
        first = rows[-1]["dataset_to_index"] if rows else 0
        added = [_row(spec, shard, episode, len(rows) + k, first) for k, episode in enumerate(episodes)]
        path = root / shard_path(DATA_PATH, shard)
        table = _renumber(path, added, tasks)
        for key, sketch in vectors.items():
            sketch.add(_matrix(table, key), f"{key} in {path}")
        if not rows:
            write_json(root / CAMERAS_PATH, _cameras(spec, table))
        rows += added
    stats = {key: merge([e["stats"][key] for es in shards.values() for e in es]) for key in spec.video_keys}
    stats |= {key: sketch.summary() for key, sketch in vectors.items()}
    _write_parquet(root / EPISODES_PATH, [_episode_table(rows)])
    _write_parquet(root / TASKS_PATH, [_task_table(tasks)])
    write_json(root / STATS_PATH, stats)
    write_json(root / INFO_PATH, info_of(spec, len(rows), rows[-1]["dataset_to_index"], len(tasks)))


def _load_shards(root: Path) -> tuple[DatasetSpec, dict[int, list[dict]]]:
    """What the shards hold, and the episodes of each as their sidecars describe them."""
    shards = {shard: _load_sidecar(root / sidecar_path(shard)) for shard in published(root)}
    if not any(episodes for _, episodes in shards.values()):
        raise ValueError(f"no complete shard with an episode in {root}: record at least one before finalising")
    first = min(shards)
    spec, _ = shards[first]
    if others := [shard for shard, (other, _) in shards.items() if other != spec]:
        raise ValueError(f"shards {others} of {root} were recorded with other settings than shard {first}: remove them")
    found = {shard: episodes for shard, (_, episodes) in shards.items() if episodes}
    for shard in found:
        for path in (shard_path(VIDEO_PATH, shard, video_key=key) for key in spec.video_keys):
            if not (root / path).exists():
                raise ValueError(f"{root / path} is missing: remove {root / sidecar_path(shard)}, and record it anew")
    return spec, found


def _load_sidecar(path: Path) -> tuple[DatasetSpec, list[dict]]:
    content = read_json(path)
    try:
        spec, episodes = DatasetSpec.parse(content["spec"]), content["episodes"]
        for episode in episodes:
            if missing := SIDECAR_KEYS - episode.keys() | set(spec.video_keys) - episode["stats"].keys():
                raise ValueError(f"an episode lacks {sorted(missing)}")
            if not episode["tasks"]:
                raise ValueError("an episode has no instruction")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} describes no shard ({error}): remove it, and record that shard anew") from error
    return spec, episodes


def _row(spec: DatasetSpec, shard: int, episode: dict, index: int, shard_start: int) -> dict:
    """An episode's line in meta/episodes."""
    chunk, file = shard // FILES_PER_CHUNK, shard % FILES_PER_CHUNK
    start, length = episode["from_frame"], episode["length"]
    row = {"episode_index": index, "tasks": episode["tasks"], "length": length}
    row |= {name: episode[name] for name in ("environment", "seed", "success")}
    row |= {"data/chunk_index": chunk, "data/file_index": file}
    row |= {"dataset_from_index": shard_start + start, "dataset_to_index": shard_start + start + length}
    for key in spec.video_keys:
        row |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file}
        row[f"videos/{key}/from_timestamp"] = start / spec.fps
        row[f"videos/{key}/to_timestamp"] = (start + length) / spec.fps
    row |= {f"stats/{key}/{name}": value for key, stats in episode["stats"].items() for name, value in stats.items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _renumber(path: Path, rows: list[dict], tasks: list[str]) -> pa.Table:
    """A shard's table with the dataset's numbers; on disk too, where they differ."""
    with opened(path) as file:
        table = file.read()
    lengths = [row["length"] for row in rows]
    if missing := sorted({*COUNTED, "observation.state", "action"} - set(table.column_names)):
        raise ValueError(f"{path} lacks the columns {missing}: record that shard anew")
    if len(table) != sum(lengths):
        raise ValueError(f"{path} has {len(table)} rows, its shard needs {sum(lengths)}: record that shard anew")
    numbers = {
        "episode_index": np.repeat([row["episode_index"] for row in rows], lengths),
        "index": np.arange(rows[0]["dataset_from_index"], rows[-1]["dataset_to_index"]),
        "task_index": np.repeat([tasks.index(row["tasks"][0]) for row in rows], lengths),
    }
    renumbered = table
    for name, column in numbers.items():
        renumbered = renumbered.set_column(table.column_names.index(name), name, pa.array(column, pa.int64()))
    if any(not renumbered.column(name).equals(table.column(name)) for name in numbers):
        starts = np.cumsum(lengths) - lengths
        _write_parquet(path, [renumbered.slice(*span) for span in zip(starts, lengths, strict=True)])
    return renumbered


def _matrix(table: pa.Table, key: str) -> np.ndarray:
    """A column of vectors, or of plain numbers, which are vectors of one entry: (N, D)."""
    column = table.column(key).combine_chunks()
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return values.to_numpy().reshape(len(column), -1)


def _episode_table(rows: list[dict]) -> pa.Table:
    known = {"environment": pa.string(), "seed": pa.int64(), "success": pa.bool_()}
    columns = {name: pa.array([row[name] for row in rows], known.get(name)) for name in rows[0]}
    return pa.table(columns)


def _task_table(tasks: list[str]) -> pa.Table:
    """Tasks as the index of a pandas frame, which is where other readers look for them."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    column = {"metadata": None, "field_name": "task_index", "name": "task_index", "pandas_type": "int64"}
    index = {"metadata": None, "field_name": "task", "name": "task", "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column | {"numpy_type": "int64"}, index],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _cameras(spec: DatasetSpec, table: pa.Table) -> dict:
    """Conventions, sizes and the first frame's calibration, for people; each frame's own is in its row."""
    cameras = {}
    for camera in spec.cameras:
        described = {"height": camera.height, "width": camera.width}
        if camera.calibrated:
            described["first_intrinsics"] = table.column(intrinsics_key(camera.name))[0].as_py()
            described["first_T_base_cam"] = table.column(extrinsics_key(camera.name))[0].as_py()
        cameras[camera.name] = described
    axes = "OpenCV: x right, y down, z forward; the centre of the pixel in column u and row v is (u + 0.5, v + 0.5)"
    extrinsics = "T_base_cam, camera coordinates to the robot's base frame, metres"
    return {"axes": axes, "extrinsics": extrinsics, "depth": "z in metres, 0 where unknown", "cameras": cameras}


def _write_parquet(path: Path, row_groups: list[pa.Table]) -> None:
    def write(file: Path) -> None:
        with pq.ParquetWriter(file, row_groups[0].schema) as writer:
            for table in row_groups:
                writer.write_table(table)

    write_atomically(path, write)
