"""Episodes survive the disk, and whatever happens to the process or the files is told, not guessed at."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pyarrow.parquet as pq
import pytest

from recordings import HEIGHT, WIDTH, record, smooth_episode, toy_spec
from xwam.core.depth import StoredDepth
from xwam.core.video import VideoWriter
from xwam.data.episodes import EpisodeStore
from xwam.data.finalise import finalise
from xwam.data.writer import ShardWriter, published

LENGTHS = ((24, 31), (17,), (40, 12))
RGB = "videos/observation.images.front/chunk-000/file-000.mp4"


def episodes():
    return [[smooth_episode(n, seed=10 * s + k) for k, n in enumerate(lengths)] for s, lengths in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    record(root, episodes())
    return root


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "copy")


def psnr_db(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_what_is_recorded_is_read(dataset):
    store = EpisodeStore(dataset)
    recorded = [episode for shard in episodes() for episode in shard]
    assert len(store) == len(recorded)
    for i, wrote in enumerate(recorded):
        read = store.read_all(i)
        assert np.array_equal(read.proprio, wrote.proprio) and np.array_equal(read.actions, wrote.actions)
        told = ("instructions", "environment", "seed", "success", "length")
        assert [getattr(read, name) for name in told] == [getattr(wrote, name) for name in told]
        for camera in wrote.rgb:
            assert psnr_db(read.rgb[camera], wrote.rgb[camera]) > 35
            assert np.abs(read.depth_m[camera] - wrote.depth_m[camera]).max() < 1.1e-3
            np.testing.assert_allclose(read.intrinsics[camera], wrote.intrinsics[camera], rtol=1e-6)
            np.testing.assert_allclose(read.T_base_cam[camera], wrote.T_base_cam[camera], atol=1e-6)


def test_any_order_of_frames_reads_as_the_sequence(dataset):
    store = EpisodeStore(dataset, open_files=3)
    whole = {i: store.read_all(i) for i in range(len(store))}
    for frame in (7, 7, 8, 0, 23, 23):
        assert np.array_equal(store.read(0, [frame]).rgb["front"][0], whole[0].rgb["front"][frame])
    rng = np.random.default_rng(0)
    for _ in range(40):
        i = int(rng.integers(len(store)))
        frames = rng.integers(store.info(i).length, size=rng.integers(1, 7)).tolist()
        views = store.read(i, frames)
        for camera in views.rgb:
            assert np.array_equal(views.rgb[camera], whole[i].rgb[camera][frames])
            assert np.array_equal(views.depth_m[camera], whole[i].depth_m[camera][frames])
            assert np.array_equal(views.T_base_cam[camera], whole[i].T_base_cam[camera][frames])


def test_the_same_frames_give_the_same_video_whatever_was_in_memory_before(tmp_path):
    frames, random, memory = smooth_episode(12).rgb["front"], np.random.default_rng(0), []

    def encoded(path):
        writer = VideoWriter(path, HEIGHT, WIDTH, fps=20)
        writer.add(frames)
        writer.close()
        return sha256(path.read_bytes()).hexdigest()

    seen = set()
    for k in range(200):  # with x264's mbtree, one in fifty differs
        memory.append(random.integers(0, 255, random.integers(1, 500_000), np.uint8))
        if k % 3 == 0:
            memory.clear()
        seen.add(encoded(tmp_path / "video.mp4"))
    assert len(seen) == 1


def test_cameras_and_depth_are_chosen(dataset):
    views = EpisodeStore(dataset).read(0, [3], cameras=["wrist"], depth=False)
    assert list(views.rgb) == ["wrist"] and not views.depth_m and list(views.intrinsics) == ["wrist"]


def test_a_dataset_without_depth(tmp_path):
    episode = replace(smooth_episode(), depth_m={})
    read = record(tmp_path, [[episode]], toy_spec(depth=False)).read_all(0)
    assert read.depth_m == {} and read.rgb["front"].shape == (24, HEIGHT, WIDTH, 3)


def test_depth_codes():
    depth = StoredDepth(min_m=0.1, max_m=4.0)
    metres = np.array([0, np.nan, np.inf, -1, 0.01, 0.1, 4.0, 4.01, 1.0], dtype=np.float32)
    np.testing.assert_allclose(depth.decode(depth.encode(metres)), [0, 0, 0, 0, 0.1, 0.1, 4, 0, 1], atol=5e-4)
    grid = np.linspace(0.101, 3.999, 5000)
    assert np.max(np.abs(depth.decode(depth.encode(grid)) / grid - 1)) < 0.5e-3


def test_layout_is_what_other_readers_expect(dataset):
    info = json.loads((dataset / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 20 and info["total_frames"] == 124
    depth = info["features"]["observation.images.front_depth"]
    assert depth["shape"] == [HEIGHT, WIDTH, 1] and depth["info"]["is_depth_map"] and depth["info"]["depth_unit"] == "m"
    tasks = pq.read_table(dataset / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    index, frames = [], []
    for shard, lengths in enumerate(LENGTHS):
        file = pq.ParquetFile(dataset / f"data/chunk-000/file-00{shard}.parquet")
        assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == list(lengths)
        table = file.read()
        index += table["index"].to_pylist()
        frames += table["frame_index"].to_pylist()
        assert sorted(set(table["episode_index"].to_pylist())) == [[0, 1], [2], [3, 4]][shard]
        named = {tasks["task"][k].as_py() for k in set(table["task_index"].to_pylist())}
        assert named == {"reach the ball"}
    assert index == list(range(124)) and frames[:24] == list(range(24))
    stats = json.loads((dataset / "meta/stats.json").read_text())
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1) and len(stats["action"]["q99"]) == 4


def test_a_store_travels_to_other_processes(dataset):
    store = EpisodeStore(dataset)
    here = store.read(1, [5, 9]).rgb["front"]
    assert np.array_equal(pickle.loads(pickle.dumps(store)).read(1, [5, 9]).rgb["front"], here)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            for views in pool.starmap(store.read, [(1, [5, 9])] * 3):
                assert np.array_equal(views.rgb["front"], here)


def test_threads_share_a_store(dataset):
    store = EpisodeStore(dataset)
    whole = store.read_all(3).rgb["front"]
    wanted = [np.random.default_rng(k).integers(40, size=5).tolist() for k in range(40)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda frames: store.read(3, frames, ["front"]).rgb["front"], wanted))
    assert all(np.array_equal(images, whole[frames]) for images, frames in zip(read, wanted, strict=True))


def test_vectors_of_one_entry(tmp_path):
    spec = toy_spec().model_copy(update={"action": ("effort",)})
    episode = replace(smooth_episode(), actions=smooth_episode().actions[:, :1])
    assert np.array_equal(record(tmp_path, [[episode]], spec).vectors(0)[1], episode.actions)


def test_episodes_import_without_torch():
    blocked = "import sys; sys.modules['torch'] = None; import xwam.data.finalise, xwam.data.clips"
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", blocked], check=True, env=paths)


def test_later_shards_leave_earlier_ones_alone(tmp_path):
    first, second, third = episodes()
    with ShardWriter(tmp_path, toy_spec(), 1) as writer:
        writer.add(second[0])
    finalise(tmp_path)
    assert EpisodeStore(tmp_path).info(0).length == 17
    with ShardWriter(tmp_path, toy_spec(), 0) as writer:
        for episode in first:
            writer.add(episode)
    assert EpisodeStore(tmp_path).info(0).length == 17  # unseen until finalised
    finalise(tmp_path)
    store = EpisodeStore(tmp_path)
    assert [store.info(i).length for i in range(3)] == [24, 31, 17]
    assert np.array_equal(store.vectors(2)[1], second[0].actions)
    assert psnr_db(store.read_all(2).rgb["wrist"], second[0].rgb["wrist"]) > 35


def _record_forever(root, started):
    with ShardWriter(root, toy_spec(), 1) as writer:
        for k in range(10_000):
            writer.add(smooth_episode(seed=k))
            started.set()


def test_a_killed_recording_resumes(tmp_path):
    record(tmp_path, [[smooth_episode()]])
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_record_forever, args=(tmp_path, started))
    process.start()
    assert started.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert published(tmp_path) == [0] and len(EpisodeStore(tmp_path)) == 1
    assert list(tmp_path.glob(".shard-00001-*"))
    with ShardWriter(tmp_path, toy_spec(), 1) as writer:
        writer.add(smooth_episode(seed=5))
    finalise(tmp_path)
    assert published(tmp_path) == [0, 1] and EpisodeStore(tmp_path).info(1).seed == 5
    assert not list(tmp_path.glob(".*"))


def test_files_moved_before_a_kill_do_not_count(tmp_path):
    record(tmp_path, [[smooth_episode(seed=1)], [smooth_episode(seed=2)]])
    (tmp_path / "shards/shard-00001.json").unlink()
    finalise(tmp_path)
    assert len(EpisodeStore(tmp_path)) == 1
    with ShardWriter(tmp_path, toy_spec(), 1) as writer:
        writer.add(smooth_episode(seed=3))
    finalise(tmp_path)
    assert [EpisodeStore(tmp_path).info(i).seed for i in range(2)] == [1, 3]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    record(tmp_path, [[smooth_episode()]])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(VideoWriter, "close", full)
    with pytest.raises(OSError, match="disk full in shard 1: free some space"):
        with ShardWriter(tmp_path, toy_spec(), 1) as writer:
            writer.add(smooth_episode())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".*"))


def test_a_failing_world_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="simulator"):
        with ShardWriter(tmp_path, toy_spec(), 0) as writer:
            writer.add(smooth_episode())
            raise RuntimeError("simulator broke")
    assert not any(tmp_path.iterdir())


def test_an_empty_shard_counts_as_tried(tmp_path):
    with ShardWriter(tmp_path, toy_spec(), 0):
        pass
    with ShardWriter(tmp_path, toy_spec(), 1) as writer:
        writer.add(smooth_episode(seed=4))
    finalise(tmp_path)
    assert published(tmp_path) == [0, 1] and EpisodeStore(tmp_path).info(0).seed == 4


def broken(**changes):
    episode = smooth_episode()
    return replace(episode, **{name: change(getattr(episode, name)) for name, change in changes.items()})


def poison(array, value=np.nan):
    array = array.copy()
    array[3, 1] = value
    return array


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"actions": poison}, "actions holds NaN or infinity, first in row 3"),
        ({"proprio": lambda x: poison(x, np.inf)}, "proprio holds NaN"),
        ({"proprio": lambda x: x[:-1]}, r"proprio has shape \(23, 4\)"),
        ({"actions": lambda x: x[:, :3]}, r"actions has shape \(24, 3\)"),
        ({"rgb": lambda x: {"front": x["front"]}}, "rgb is of cameras"),
        ({"rgb": lambda x: x | {"front": x["front"][:, :-2]}}, "rgb of 'front' has shape"),
        ({"rgb": lambda x: x | {"front": x["front"] / 255.0}}, "convert it to uint8"),
        ({"depth_m": lambda x: {}}, "depth_m lacks camera 'front'"),
        ({"depth_m": lambda x: x | {"wrist": x["wrist"][1:]}}, "depth_m of 'wrist' has shape"),
        ({"T_base_cam": lambda x: x | {"wrist": poison(x["wrist"])}}, "T_base_cam of 'wrist' holds NaN"),
        ({"instructions": lambda x: ()}, "give one or more"),
        ({"instructions": lambda x: ("go", " ")}, "not empty"),
    ],
)
def test_bad_episodes_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        with ShardWriter(tmp_path, toy_spec(), 0) as writer:
            writer.add(broken(**changes))
    assert not any(tmp_path.iterdir())


def edit_info(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_features(root, key, **changes):
    listed = json.loads((root / "meta/info.json").read_text())["features"]
    edit_info(root, features=listed | {key: listed[key] | changes})


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_channels_may_come_first(copy):
    edit_features(copy, "observation.images.front", shape=[3, HEIGHT, WIDTH], names=["channels", "height", "width"])
    assert EpisodeStore(copy).spec == toy_spec()


def test_a_picture_of_depth_is_a_camera(copy):
    edit_features(copy, "observation.images.front_depth", info={"video.pix_fmt": "yuv420p"})
    store = EpisodeStore(copy)
    assert store.spec.camera_names == ("front", "front_depth", "wrist") and store.spec.camera("front").depth is None


def all_images(root) -> None:
    """As LeRobot writes it where no camera is a video."""
    for camera in ("front", "wrist"):
        edit_features(root, f"observation.images.{camera}", dtype="image")
    edit_info(root, video_path=None)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda root: edit_info(root, storage_format="lance"), "convert the dataset to parquet"),
        (lambda root: edit_info(root, codebase_version="v2.1"), "codebase_version 'v2.1'"),
        (lambda root: edit_info(root, features={}), "lacks .*observation.state"),
        (lambda root: edit_features(root, "observation.images.front", dtype="image"), "front'] are images in tables"),
        (lambda root: all_images(root), "convert_image_to_video"),
        (lambda root: edit_info(root, total_episodes=9), "counts 9: finalise it"),
        (lambda root: (root / "meta/info.json").write_text("{"), "cannot be read as JSON"),
        (lambda root: shutil.rmtree(root / "meta"), "no dataset in"),
        (lambda root: shutil.rmtree(root / "meta/episodes"), "file-000.parquet is missing"),
        (lambda root: halve(root / "meta/episodes/chunk-000/file-000.parquet"), "damaged or truncated"),
        (lambda root: (root / RGB).unlink(), "file-000.mp4 is missing"),
        (lambda root: (root / RGB).write_bytes(b""), "file-000.mp4 is damaged or truncated"),
        (lambda root: halve(root / RGB), "file-000.mp4 is damaged or truncated"),
        (lambda root: (root / RGB).write_bytes(b"no video at all" * 99), "file-000.mp4 is damaged or truncated"),
        (lambda root: shutil.copy(root / RGB.replace("000.mp4", "001.mp4"), root / RGB), "no frame at"),
        (lambda root: halve(root / "data/chunk-000/file-000.parquet"), "file-000.parquet is damaged"),
    ],
)
def test_damaged_datasets_are_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(ValueError, match=message):
        EpisodeStore(copy).read_all(1)


def test_bad_requests_are_refused(dataset, tmp_path):
    store = EpisodeStore(dataset)
    with pytest.raises(ValueError, match=r"unknown camera 'top'.*front.*wrist"):
        store.read(0, [0], cameras=["top"])
    with pytest.raises(ValueError, match="it has frames 0 .. 23"):
        store.read(0, [24])
    with pytest.raises(ValueError, match="episodes 0 .. 4"):
        store.read(5, [0])
    with pytest.raises(ValueError, match="already recorded"):
        ShardWriter(dataset, toy_spec(), 0)
    with pytest.raises(ValueError, match="no complete shard"):
        finalise(tmp_path)
