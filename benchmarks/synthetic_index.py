"""The index of any number of episodes, without the episodes: to measure how a large dataset is opened."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xwam.core.depth import StoredDepth
from xwam.core.files import write_json
from xwam.data.info import info_of
from xwam.data.layout import DATA_PATH, INFO_PATH, VIDEO_PATH, DatasetSpec, StoredCamera

EPISODES_PER_TABLE, ROWS_PER_GROUP, EPISODES_PER_FILE = 15_000, 1_000, 1_500
TASKS, ENVIRONMENTS = 20_000, 5_000
FPS = 20


def write_synthetic(root: Path, episodes: int, views: int = 3) -> None:
    """meta/ of `episodes` episodes, two instructions each, with statistics as LeRobot has them; all files are empty."""
    cameras = tuple(
        StoredCamera(name=f"camera{k}", height=256, width=256, depth=StoredDepth(min_m=0.1, max_m=4))
        for k in range(views)
    )
    names = tuple(f"joint{k}" for k in range(7))
    spec = DatasetSpec(robot="synthetic", fps=FPS, cameras=cameras, proprio=names, action=names)
    random = np.random.default_rng(0)
    lengths = random.integers(50, 400, episodes)
    first_rows = np.cumsum(lengths) - lengths
    for table, first in enumerate(range(0, episodes, EPISODES_PER_TABLE)):
        numbers = np.arange(first, min(first + EPISODES_PER_TABLE, episodes))
        columns = _columns(spec, numbers, lengths[numbers], first_rows) | _statistics(spec, len(numbers), random)
        path = root / f"meta/episodes/chunk-000/file-{table:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, row_group_size=ROWS_PER_GROUP)
    for file in range(-(-episodes // EPISODES_PER_FILE)):
        where = {"chunk_index": 0, "file_index": file}
        paths = [DATA_PATH.format(**where), *(VIDEO_PATH.format(video_key=key, **where) for key in spec.video_keys)]
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
    write_json(root / INFO_PATH, info_of(spec, episodes, int(lengths.sum()), 2 * min(TASKS, episodes)))


def _columns(spec: DatasetSpec, numbers: np.ndarray, lengths: np.ndarray, first_rows: np.ndarray) -> dict:
    begins, files = first_rows[numbers], numbers // EPISODES_PER_FILE
    begins_s = (begins - first_rows[files * EPISODES_PER_FILE]) / spec.fps
    tasks = [[f"put object {k} onto the shelf", f"please shelve object number {k}"] for k in (numbers % TASKS).tolist()]
    columns = {"episode_index": numbers, "tasks": pa.array(tasks), "length": lengths}
    columns |= {"environment": pa.array([f"kitchen {k}" for k in (numbers % ENVIRONMENTS).tolist()])}
    columns |= {"seed": numbers, "success": numbers % 7 > 0}
    columns |= {"dataset_from_index": begins, "dataset_to_index": begins + lengths}
    for shelf in ("data", *(f"videos/{key}" for key in spec.video_keys)):
        columns |= {f"{shelf}/chunk_index": np.zeros_like(files), f"{shelf}/file_index": files}
        if shelf != "data":
            columns |= {f"{shelf}/from_timestamp": begins_s, f"{shelf}/to_timestamp": begins_s + lengths / spec.fps}
    return columns


def _statistics(spec: DatasetSpec, count: int, random: np.random.Generator) -> dict:
    """Of every video a few lists of numbers, which readers of the index have no use for."""
    values = random.random((count, 3)).astype(np.float32)
    listed = pa.FixedSizeListArray.from_arrays(values.ravel(), 3).cast(pa.list_(pa.float32()))
    return {f"stats/{key}/{name}": listed for key in spec.video_keys for name in ("min", "max", "mean", "std", "q99")}
