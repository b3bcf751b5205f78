"""Depth where none was recorded: a model's guess from the images, kept in the dataset and labelled `relative`.

An estimator is any callable as below: a wrapper of a video depth model gives depth that stands still where the scene
does, which a model of single images cannot promise.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, UInt8
from rich.progress import Progress

from xwam.core.depth import DepthCoding, StoredDepth
from xwam.core.embodiment_file import embodiment_text
from xwam.core.files import read_json, write_atomically, write_json
from xwam.core.video import VideoReader, VideoWriter
from xwam.data.episodes import EpisodeStore
from xwam.data.info import depth_feature, load_info
from xwam.data.layout import EMBODIMENT_PATH, FILES_PER_CHUNK, INFO_PATH, STATS_PATH, depth_key
from xwam.data.statistics import merge, summarise_images

PLAN_PATH = "meta/estimated_depth.json"
EPISODES_PER_FILE = 20
# Nominal, for a depth without unit: the nearest and farthest 1% of an episode are put here.
NOMINAL = DepthCoding(near_m=0.25, far_m=4.0)
STORED = StoredDepth(min_m=NOMINAL.near_m / 2, max_m=NOMINAL.far_m * 2, scale="relative")
LEAST_SPAN = 1e-9


class DepthEstimator(Protocol):
    """Guesses depth from the images of one camera in one episode; `name` says which model and weights it is."""

    name: str

    def __call__(self, rgb: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T H W"]:
        """Inverse depth, larger is nearer, up to a scale and a shift that all frames share; NaN where unknown."""
        ...


def estimator_named(place: str) -> DepthEstimator:
    """Calls the MODULE:CALLABLE of a user's own module, which returns an estimator."""
    module, colon, name = place.partition(":")
    try:
        estimator = getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"no estimator at {place!r} ({error}): write MODULE:CALLABLE, importable from here") from error
    if not callable(estimator) or not isinstance(getattr(estimator, "name", None), str):
        raise ValueError(f"{place!r} gave {estimator!r}: an estimator is callable and has a `name`")
    return estimator


def relative_depth(inverse: Float[np.ndarray, "T H W"]) -> Float[np.ndarray, "T H W"]:
    """Depth without unit whose inverse is affine in `inverse`: its 1% and 99% quantiles become the nominal range.

    0, which is unknown, where `inverse` is not finite, and everywhere if it does not vary.
    """
    known = np.isfinite(inverse)
    low, high = np.quantile(inverse[known], [0.01, 0.99]) if known.any() else (0.0, 0.0)
    if high - low < LEAST_SPAN:
        return np.zeros(inverse.shape, np.float32)
    share = (np.where(known, inverse, low) - low) / (high - low)
    return np.where(known, NOMINAL.decode(2 * share - 1), 0).astype(np.float32)


def add_depth(root: Path, estimator: DepthEstimator, cameras: Sequence[str] | None = None) -> None:
    """Adds estimated depth of the cameras that have none (all of them if None) to a dataset, in place.

    The images are left as they are. A run that was stopped goes on; the depth counts when info.json lists it, which is
    last. Raises ValueError for a camera that has depth, or if another estimator began.
    """
    store = EpisodeStore(root)
    chosen = _without_depth(store, cameras)
    plan = {"estimator": estimator.name, "cameras": chosen, "scale": STORED.scale}
    path = root / PLAN_PATH
    if path.exists() and (begun := read_json(path)) != plan:
        raise ValueError(f"{path} tells of {begun}, now asked for {plan}: finish that first, or remove its videos")
    write_json(path, plan)
    groups = list(_groups(len(store)))
    with Progress() as progress:
        task = progress.add_task("Estimating depth", total=len(store) * len(chosen))
        for camera in chosen:
            for number, episodes in enumerate(groups):
                video = _video_path(store, camera, number)
                if not video.exists():
                    write_atomically(video, lambda file: _write(file, store, estimator, camera, episodes))  # noqa: B023
                progress.advance(task, len(episodes))
    _publish(store, chosen)


def _without_depth(store: EpisodeStore, cameras: Sequence[str] | None) -> list[str]:
    bare = [camera.name for camera in store.spec.cameras if camera.depth is None]
    if cameras is None and not bare:
        raise ValueError(f"every camera of {store.root} has depth: nothing to estimate")
    for name in cameras or ():
        if store.spec.camera(name).depth is not None:
            raise ValueError(f"camera {name!r} of {store.root} has depth: estimate only the others, {bare}")
    return bare if cameras is None else list(cameras)


def _groups(episodes: int) -> Iterator[range]:
    """Episodes that share a video file."""
    for first in range(0, episodes, EPISODES_PER_FILE):
        yield range(first, min(first + EPISODES_PER_FILE, episodes))


def _video_path(store: EpisodeStore, camera: str, number: int) -> Path:
    """The file of a group's estimated depth."""
    return store.video_path(depth_key(camera), *divmod(number, FILES_PER_CHUNK))


def _write(file: Path, store: EpisodeStore, estimator: DepthEstimator, camera: str, episodes: range) -> None:
    described = store.spec.camera(camera)
    writer = VideoWriter(file, described.height, described.width, store.spec.fps, STORED)
    try:
        for episode in episodes:
            rgb = store.read(episode, range(store.info(episode).length), [camera], depth=False).rgb[camera]
            inverse = np.asarray(estimator(rgb))
            if inverse.shape != rgb.shape[:3]:
                raise ValueError(
                    f"estimator {estimator.name!r} gave shape {inverse.shape} for images {rgb.shape}: "
                    f"it must give {rgb.shape[:3]}"
                )
            writer.add(relative_depth(inverse))
        writer.close()
    except BaseException:
        writer.abort()
        raise


def _publish(store: EpisodeStore, cameras: Sequence[str]) -> None:
    """Lists the new videos: episodes' lines, statistics and robot first, info.json last."""
    lengths = np.array([store.info(episode).length for episode in range(len(store))])
    numbers = np.arange(len(store)) // EPISODES_PER_FILE
    ends = np.cumsum(lengths)
    starts = ends - lengths
    starts = (starts - starts[numbers * EPISODES_PER_FILE]) / store.spec.fps
    places = {
        "chunk_index": numbers // FILES_PER_CHUNK,
        "file_index": numbers % FILES_PER_CHUNK,
        "from_timestamp": starts,
        "to_timestamp": starts + lengths / store.spec.fps,
    }
    for path in sorted((store.root / "meta/episodes").glob("*/*.parquet")):
        with pq.ParquetFile(path) as file:
            table = file.read()
        rows = table.column("episode_index").to_numpy()
        for camera in cameras:
            for name, values in places.items():
                table = _with_column(table, f"videos/{depth_key(camera)}/{name}", values[rows])
        write_atomically(path, lambda file: pq.write_table(table, file))  # noqa: B023
    _describe(store, cameras)
    info = load_info(store.root)
    for camera in cameras:
        described = store.spec.camera(camera).model_copy(update={"depth": STORED})
        info["features"][depth_key(camera)] = depth_feature(described, store.spec.fps)
    write_json(store.root / INFO_PATH, info)


def _describe(store: EpisodeStore, cameras: Sequence[str]) -> None:
    """The statistics' entries, and the robot's cameras, whose depth is `relative` from now on."""
    stats_path = store.root / STATS_PATH
    if stats_path.exists():
        stats = read_json(stats_path)
        for camera in cameras:
            stats[depth_key(camera)] = _statistics(store, camera)
        write_json(stats_path, stats)
    robot = store.embodiment()
    if robot is not None:
        nominal = {"near_m": NOMINAL.near_m, "far_m": NOMINAL.far_m, "depth_scale": "relative"}
        estimated = [
            camera.model_copy(update=nominal | {"unknown_depth": "missing"} if camera.name in cameras else {})
            for camera in robot.cameras
        ]
        text = embodiment_text(robot.model_copy(update={"cameras": tuple(estimated)}))
        write_atomically(store.root / EMBODIMENT_PATH, lambda file: file.write_text(text))


def _statistics(store: EpisodeStore, camera: str) -> dict:
    """Of some frames of the first episode of every file."""
    summaries = []
    for number, episodes in enumerate(_groups(len(store))):
        reader = VideoReader(_video_path(store, camera, number), STORED)
        frames = np.linspace(0, store.info(episodes[0]).length - 1, 8).astype(int)
        summaries.append(summarise_images(reader.read(frames / store.spec.fps)))
    return merge(summaries)


def _with_column(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    """The column put in, or in place of the one of this name."""
    kept = table.drop_columns([name]) if name in table.column_names else table
    return kept.append_column(name, pa.array(values))
