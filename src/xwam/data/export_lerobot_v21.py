"""A dataset as LeRobotDataset v2.1, for readers of that version: a table and a video of each camera an episode.

.OUT.exporting/             beside OUT, until the end
    episodes/000012.json    an episode counts when this is there: its lines in the tables of episodes and statistics
    dataset/                becomes OUT

Depth is a video of its own, `<camera>_depth`, coded as in v3.0; readers of v2.1 see it as a grey picture of its codes.
"""

import json
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xwam.core.depth import DEPTH_CODES, StoredDepth
from xwam.core.files import write_atomically, write_json
from xwam.core.video import VideoReader
from xwam.data.card import write_card
from xwam.data.cut import cut_video
from xwam.data.episodes import EpisodeStore
from xwam.data.importers.files import files_below, fingerprint
from xwam.data.info import features
from xwam.data.layout import EMBODIMENT_PATH, INFO_PATH, depth_key
from xwam.data.processes import progress_bar, run_all
from xwam.data.sketch import Summary
from xwam.data.staging import check_places, code_fingerprint, staging
from xwam.data.statistics import summarise, summarise_images

NAME = "lerobot-v2.1"
VERSION = "v2.1"
EPISODES_PER_CHUNK = 1000
TABLE_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
RECORDS, DATASET = "episodes", "dataset"
# Frames of each video that are looked at for its statistics, the last one among them.
SAMPLED_FRAMES = 8


def export_lerobot_v21(dataset: Path, out: Path, workers: int = 2) -> None:
    """Exports a dataset to `out`, which must not exist yet, or be empty; a stopped export goes on.

    Exported are state, action, calibration, images and depth: what `DatasetSpec` tells of. Other columns are not.
    """
    source, out = Path(os.path.abspath(dataset)), out.resolve()
    check_places(source.resolve(), out)
    store = EpisodeStore(source)
    store.embodiment()  # raises now, not in the end, if it is another's
    files = fingerprint(files_below(source))
    plan = {"the dataset": str(source), "its files": files, "the format": NAME}
    with staging(out, "exporting", plan | {"the installed version": code_fingerprint()}) as folder:
        _export_episodes(folder, store, workers)
        if fingerprint(files_below(source)) != files:
            raise ValueError(f"{source} changed while it was exported: export it when nothing writes there")
        _describe(folder / DATASET, store, [_record(folder, episode) for episode in range(len(store))])
        write_card(store, folder / DATASET)
        for left_behind in (folder / DATASET).rglob(".*"):  # half a file, by a process that was killed
            left_behind.unlink()
        os.replace(folder / DATASET, out)
        shutil.rmtree(folder)


def _export_episodes(folder: Path, store: EpisodeStore, workers: int) -> None:
    infos = [store.info(episode) for episode in range(len(store))]
    if wordless := [episode for episode, info in enumerate(infos) if not info.instructions]:
        raise ValueError(f"episode {wordless[0]} of {store.root} has no instruction: import it with --instruction")
    tasks = _tasks(store)
    first_rows = np.cumsum([0, *(info.length for info in infos)]).tolist()
    missing = [k for k in range(len(store)) if not _record_path(folder, k).exists()]
    jobs = [(folder, store.root, k, first_rows[k], tasks[infos[k].instructions[0]]) for k in missing]
    with progress_bar() as progress:
        done = len(store) - len(missing)
        bar = progress.add_task("Exporting episodes", total=len(store), completed=done)
        for _ in run_all(export_episode, jobs, workers):
            progress.advance(bar)


def _tasks(store: EpisodeStore) -> dict[str, int]:
    """Numbers of all instructions, in order of appearance."""
    texts = dict.fromkeys(text for episode in range(len(store)) for text in store.info(episode).instructions)
    return {text: number for number, text in enumerate(texts)}


@lru_cache(maxsize=1)
def _store(root: Path) -> EpisodeStore:
    """Opened once in each process."""
    return EpisodeStore(root)


def export_episode(folder: Path, root: Path, episode: int, first_row: int, task: int) -> None:
    """Writes an episode's table and videos, and last what makes them count."""
    try:
        _export_episode(folder, _store(root), episode, first_row, task)
    except ValueError as error:
        raise ValueError(f"episode {episode} of {root}: {error}; `xwam validate` tells more") from error


def _export_episode(folder: Path, store: EpisodeStore, episode: int, first_row: int, task: int) -> None:
    place = {"episode_chunk": episode // EPISODES_PER_CHUNK, "episode_index": episode}
    info, spec = store.info(episode), store.spec
    columns = _columns(store, episode, first_row, task)
    path = folder / DATASET / TABLE_PATH.format(**place)
    write_atomically(path, lambda file: pq.write_table(_table(columns), file))
    stats = {key: _summary(values) for key, values in columns.items()}
    streams, depths = {}, {depth_key(camera.name): camera.depth for camera in spec.cameras}
    for key, (source, from_s) in zip(spec.video_keys, store.files(episode, spec.camera_names)[1:], strict=True):
        video = folder / DATASET / VIDEO_PATH.format(video_key=key, **place)
        depth = depths.get(key)
        write_atomically(video, lambda file: cut_video(source, from_s, info.length, spec.fps, file, depth))  # noqa: B023
        stats[key], streams[key] = _image_summary(video, info.length, spec.fps, depth), _stream(video)
    line = {"episode_index": episode, "tasks": list(info.instructions), "length": info.length}
    line |= {name: getattr(info, name) for name in ("environment", "seed", "success")}
    write_json(_record_path(folder, episode), {"line": line, "stats": stats, "streams": streams})


# ---- tables ------------------------------------------------------------------------------------------------------


def _columns(store: EpisodeStore, episode: int, first_row: int, task: int) -> dict[str, np.ndarray]:
    """An episode's rows, numbered anew, with times from 0."""
    length = store.info(episode).length
    rows = np.arange(length)
    numbers = {"timestamp": (rows / store.spec.fps).astype(np.float32), "frame_index": rows, "index": rows + first_row}
    numbers |= {"episode_index": np.full_like(rows, episode), "task_index": np.full_like(rows, task)}
    found = {}
    for key, feature in features(store.spec).items():
        if feature["dtype"] != "video":
            shape = (length, *feature["shape"])
            found[key] = (
                numbers[key] if key in numbers else store.column(episode, key).astype(np.float32).reshape(shape)
            )
    return found


def _table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Vectors as lists of their length, matrices as lists of lists, vectors of one entry as plain numbers."""
    arrays = {}
    for key, values in columns.items():
        if values.ndim == 3:
            arrays[key] = pa.array(values.tolist(), pa.list_(pa.list_(pa.from_numpy_dtype(values.dtype))))
        elif values.ndim == 2 and values.shape[1] > 1:
            arrays[key] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            arrays[key] = pa.array(values.ravel())
    return pa.table(arrays)


def _summary(values: np.ndarray) -> Summary:
    """Statistics of every entry, in the shape of a row."""
    summary, shape = summarise(values.reshape(len(values), -1)), values.shape[1:] or (1,)
    return {name: x if name == "count" else np.reshape(x, shape).tolist() for name, x in summary.items()}


# ---- videos ------------------------------------------------------------------------------------------------------


def _image_summary(video: Path, frames: int, fps: int, depth: StoredDepth | None) -> Summary:
    """Statistics of some frames as readers of v2.1 see them: three channels, 0 .. 1, of depth the share of 4095."""
    rows = np.unique(np.linspace(0, frames - 1, SAMPLED_FRAMES).astype(int))
    images = VideoReader(video, depth).read(rows / fps)
    if depth is None:
        return summarise_images(images)
    summary = summarise_images(depth.encode(images) / DEPTH_CODES)
    return {name: x if name == "count" else x * 3 for name, x in summary.items()}


def _stream(video: Path) -> dict[str, str]:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return {"video.codec": stream.codec_context.codec.canonical_name, "video.pix_fmt": stream.pix_fmt}


# ---- descriptions ------------------------------------------------------------------------------------------------


def _describe(dataset: Path, store: EpisodeStore, records: Sequence[dict[str, Any]]) -> None:
    """Writes meta/."""
    tasks, spec = _tasks(store), store.spec
    lines = [record["line"] for record in records]
    _write_lines(dataset / "meta/episodes.jsonl", lines)
    _write_lines(dataset / "meta/tasks.jsonl", [{"task_index": k, "task": text} for text, k in tasks.items()])
    stats = [{"episode_index": r["line"]["episode_index"], "stats": r["stats"]} for r in records]
    _write_lines(dataset / "meta/episodes_stats.jsonl", stats)
    described = features(spec)
    for key, stream in records[0]["streams"].items():
        described[key]["info"] |= stream
    info = {
        "codebase_version": VERSION,
        "robot_type": spec.robot,
        "total_episodes": len(lines),
        "total_frames": sum(line["length"] for line in lines),
        "total_tasks": len(tasks),
        "total_videos": len(lines) * len(spec.video_keys),
        "total_chunks": -(-len(lines) // EPISODES_PER_CHUNK),
        "chunks_size": EPISODES_PER_CHUNK,
        "fps": spec.fps,
        "splits": {"train": f"0:{len(lines)}"},
        "data_path": TABLE_PATH,
        "video_path": VIDEO_PATH,
        "features": described,
    }
    write_json(dataset / INFO_PATH, info)
    if (store.root / EMBODIMENT_PATH).exists():
        shutil.copyfile(store.root / EMBODIMENT_PATH, dataset / EMBODIMENT_PATH)


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(path, lambda file: file.write_text(text))


def _record_path(folder: Path, episode: int) -> Path:
    return folder / RECORDS / f"{episode:06d}.json"


def _record(folder: Path, episode: int) -> dict[str, Any]:
    return json.loads(_record_path(folder, episode).read_text())
