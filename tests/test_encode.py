"""Encoding ahead: killed and resumed, shared between workers, and done again exactly where something changed."""

import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recordings import record, robot, smooth_episode, toy_spec
from toy_encoding import SETTINGS, encode_all, encode_elsewhere, toy_encode_windows, toy_plan
from xwam.core.files import read_json
from xwam.data import sources
from xwam.data.claims import claimed
from xwam.data.encoding import encode_shard
from xwam.data.episodes import EpisodeStore
from xwam.data.finalise import finalise
from xwam.data.latents import LatentClips, LatentPlan
from xwam.data.shards import Shard
from xwam.data.transforms import ClipTransform
from xwam.data.writer import ShardWriter


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two recorded shards, of one episode each."""
    return record(tmp_path_factory.mktemp("data"), [[smooth_episode(10, seed=0)], [smooth_episode(13, seed=1)]])


@pytest.fixture
def own_store(tmp_path):
    """The same, for a test that changes it."""
    return record(tmp_path / "data", [[smooth_episode(10, seed=0)], [smooth_episode(13, seed=1)]])


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """What an encoding that nobody interrupted leaves, by file."""
    folder = tmp_path_factory.mktemp("whole")
    assert encode_all(toy_plan(folder, store, shard_episodes=1)) == ["made", "made"]
    return content(folder)


def content(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# ---- killed ------------------------------------------------------------------------------------------------------


def test_killed_before_any_operation_on_a_file_it_resumes_to_the_same_bytes(tmp_path):
    store = record(tmp_path / "data", [[smooth_episode(6)]])
    encode_all(toy_plan(tmp_path / "whole", store))
    whole, deaths = content(tmp_path / "whole"), 0
    assert sorted(whole) == ["latents.json", "shard-00000.safetensors", "sources/shard-00000.json"]
    while True:
        folder = tmp_path / str(deaths)
        process = encode_elsewhere(store.root, folder, 10, die_before=deaths + 1)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
        deaths += 1
        finished = folder.glob("*.safetensors")
        assert all(path.read_bytes() == whole[path.name] for path in finished)
        assert encode_all(toy_plan(folder, store)) in (["made"], ["done"])
        assert content(folder) == whole
    assert deaths > 12


def test_killed_at_any_time_it_resumes_to_the_same_bytes(store, whole, tmp_path):
    random, deaths = np.random.default_rng(0), 0
    for _ in range(12):
        process = encode_elsewhere(store.root, tmp_path, 1, slow_s=0.15)  # each shard takes twice this time
        process.join(random.uniform(0.1, 0.5))
        process.kill()
        process.join()
        deaths += process.exitcode == -9
        finished = tmp_path.glob("*.safetensors")
        assert all(path.read_bytes() == whole[path.name] for path in finished)
    assert deaths > 0
    encode_all(toy_plan(tmp_path, store, shard_episodes=1))
    assert content(tmp_path) == whole


def test_an_error_leaves_nothing_behind(store, tmp_path):
    plan = toy_plan(tmp_path, store)
    with pytest.raises(ValueError, match="video latents of 4 clips of episode 0 .* not finite in float16"):
        encode_shard(plan, 0, lambda *given: toy_encode_windows(*given) * float("nan"))
    assert [path for path in content(tmp_path) if not path.startswith("sources/")] == []


# ---- shared ------------------------------------------------------------------------------------------------------


def test_workers_share_the_shards(store, whole, tmp_path):
    processes = [encode_elsewhere(store.root, tmp_path, 1, slow_s=0.1) for _ in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    encode_all(toy_plan(tmp_path, store))
    assert content(tmp_path) == whole


def test_what_another_worker_is_at_is_left_to_it(store, tmp_path):
    plan = toy_plan(tmp_path, store, shard_episodes=1)
    with claimed(tmp_path / "claims" / "shard-00000"):
        assert encode_all(plan) == ["claimed", "made"]
    assert encode_all(plan) == ["made", "done"]


def test_two_workers_at_one_shard_do_no_harm(store, whole, tmp_path):
    plan = toy_plan(tmp_path, store, shard_episodes=1)

    def overtaken(video, windows):
        (tmp_path / "claims" / "shard-00000").unlink(missing_ok=True)  # the claim seems abandoned to the other
        if not plan.path(0).exists():
            assert encode_shard(toy_plan(tmp_path, store, 1), 0, toy_encode_windows) == "made"
        return toy_encode_windows(video, windows)

    assert encode_all(plan, overtaken) == ["made", "made"]
    assert content(tmp_path) == whole


# ---- stale -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"autoencoder": "other weights"},
        {"transform": ClipTransform(crop_ratio=0.8, size=(32, 48))},
        {"start_stride": 3},
        {"precision": "bf16"},
        {"dtype": "bfloat16"},
    ],
)
def test_other_settings_make_all_shards_stale(store, tmp_path, change):
    encode_all(toy_plan(tmp_path, store, shard_episodes=1))
    changed = SETTINGS.model_copy(update=change)
    with pytest.raises(ValueError, match="shard-00000.* was made with other settings or .* encode the dataset again"):
        LatentClips(tmp_path, store, robot(), changed, [0, 1])
    plan = toy_plan(tmp_path, store, settings=changed)
    assert encode_all(plan) == ["made", "made"] and encode_all(plan) == ["done", "done"]
    assert read_json(tmp_path / "latents.json")["made_with"]["settings"] == changed.model_dump(mode="json")


def test_of_a_camera_matters_what_reaches_its_pixels(store, tmp_path):
    encode_all(toy_plan(tmp_path, store, shard_episodes=1))
    front, wrist = robot().cameras
    on_hand = wrist.model_copy(update={"mount": "ee", "T_ee_cam": tuple(map(tuple, np.eye(4).tolist()))})
    assert encode_all(toy_plan(tmp_path, store, cameras=(front, on_hand))) == ["done", "done"]
    farther = wrist.model_copy(update={"far_m": 3.0})
    assert encode_all(toy_plan(tmp_path, store, cameras=(front, farther))) == ["made", "made"]


def change_actions(root):
    """One number of the second episode, on disk alone."""
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    actions = np.stack(table.column("action").to_numpy())
    actions[3, 0] += 1e-3
    column = pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel(), pa.float32()), actions.shape[1])
    pq.write_table(table.set_column(table.column_names.index("action"), "action", column), path)


def change_video(root):
    """One byte, where no decoder looks; size and all else stay."""
    path = next((root / "videos").glob("*front/chunk-000/file-001.mp4"))
    held = bytearray(path.read_bytes())
    held[-1] ^= 1
    path.write_bytes(held)


def record_again(root):
    """Another second episode, of the same length."""
    (root / "shards/shard-00001.json").unlink()
    with ShardWriter(root, toy_spec(), 1) as writer:
        writer.add(smooth_episode(13, seed=7))
    finalise(root)


@pytest.mark.parametrize("change", [change_actions, change_video, record_again])
def test_a_changed_source_makes_its_shard_stale(own_store, tmp_path, change):
    folder = tmp_path / "latents"
    encode_all(toy_plan(folder, own_store, shard_episodes=1))
    change(own_store.root)
    store = EpisodeStore(own_store.root)
    with pytest.raises(ValueError, match="shard-00001.* was made with other settings or from another recording"):
        LatentClips(folder, store, robot(), SETTINGS, [0, 1])
    assert encode_all(toy_plan(folder, store)) == ["done", "made"]
    assert len(LatentClips(folder, store, robot(), SETTINGS, [0, 1])) == 10


def test_a_dataset_that_grows_keeps_its_shards(tmp_path):
    folder, root = tmp_path / "latents", tmp_path / "data"
    encode_all(toy_plan(folder, record(root, [[smooth_episode(10, seed=0)]]), shard_episodes=1))
    with ShardWriter(root, toy_spec(), 1) as writer:
        writer.add(smooth_episode(13, seed=1))
    finalise(root)
    assert encode_all(toy_plan(folder, EpisodeStore(root))) == ["done", "made"]
    assert read_json(folder / "latents.json")["dataset"] == {"robot": "toy", "episodes": 2, "rows": 23}


def test_files_are_hashed_once_but_for_verify(store, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(sources, "content_digest", lambda file: hashed.append(file) or "digest")
    encode_all(toy_plan(tmp_path, store, shard_episodes=1))
    assert len(hashed) == len(set(hashed)) == 8  # two cameras, colour and depth, in two recorded shards
    encode_all(toy_plan(tmp_path, store))
    LatentClips(tmp_path, store, robot(), SETTINGS, [0, 1])
    assert len(hashed) == 8
    encode_all(LatentPlan(tmp_path, store, robot(), SETTINGS, verify=True), verify=True)
    assert len(hashed) == 16


# ---- damaged -----------------------------------------------------------------------------------------------------


def test_a_shard_cut_short_is_made_again(store, whole, tmp_path):
    plan = toy_plan(tmp_path, store, shard_episodes=1)
    encode_all(plan)
    plan.path(0).write_bytes(plan.path(0).read_bytes()[:-1])
    with pytest.raises(ValueError, match="shard-00000.safetensors is missing or damaged: encode the dataset again"):
        LatentClips(tmp_path, store, robot(), SETTINGS, [0])
    assert encode_all(plan) == ["made", "done"]
    plan.path(1).unlink()
    assert encode_all(plan) == ["done", "made"]
    assert content(tmp_path) == whole


def test_a_wrong_byte_is_found_by_verify(store, whole, tmp_path):
    plan = toy_plan(tmp_path, store, shard_episodes=1)
    encode_all(plan)
    damaged = bytearray(plan.path(1).read_bytes())
    damaged[-1000] ^= 4
    plan.path(1).write_bytes(damaged)
    assert not Shard(plan.path(1)).intact()
    assert encode_all(plan) == ["done", "done"]
    assert encode_all(plan, verify=True) == ["done", "made"]
    assert content(tmp_path) == whole


def test_what_the_dead_left_is_removed(store, whole, tmp_path):
    tmp_path.joinpath(".shard-00000.safetensors.elsewhere.17").write_bytes(b"half")
    os.utime(tmp_path / ".shard-00000.safetensors.elsewhere.17", (time.time() - 3600,) * 2)
    encode_all(toy_plan(tmp_path, store, shard_episodes=1))
    assert content(tmp_path) == whole
