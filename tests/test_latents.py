"""Latents encoded once give the batches that pixels give."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch

from recordings import record, robot, smooth_episode
from toy_encoding import FRAMES, SETTINGS, encode_all, toy_encode
from xwam.core.types import Clip
from xwam.data.batches import ClipBatches, PixelClips, collate
from xwam.data.clips import ClipDataset, ClipIndex, load_clip, split
from xwam.data.latents import LatentClips, LatentPlan, folder_of
from xwam.data.shards import Shard, write_shard
from xwam.data.statistics import fit_embodiment


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    recorded = [smooth_episode(18 + 3 * k, seed=k, environment=f"toy/{k % 2}") for k in range(6)]
    return record(tmp_path_factory.mktemp("latents"), [recorded[:3], recorded[3:]])


@pytest.fixture(scope="module")
def fitted(store):
    return fit_embodiment(store, robot(), range(len(store)))


@pytest.fixture(scope="module")
def folder(store, fitted, tmp_path_factory):
    plan = LatentPlan(tmp_path_factory.mktemp("latents"), store, fitted, SETTINGS, shard_episodes=2)
    assert encode_all(plan) == ["made"] * 3
    return plan.folder


def batches_of(clips):
    training, held_out = clips
    return ClipBatches(training, held_out, batch_size=7, seed=3, validation_batches=2)


def latent_batches(folder, store, fitted):
    return batches_of([LatentClips(folder, store, fitted, SETTINGS, part) for part in split(store, 1)])


def pixel_batches(store, fitted):
    indices = [ClipIndex(store, fitted, FRAMES, episodes=part, start_stride=2) for part in split(store, 1)]
    datasets = [ClipDataset(store, index, fitted, SETTINGS.transform) for index in indices]
    return batches_of([PixelClips(dataset, fitted, toy_encode) for dataset in datasets])


def assert_same(one, other, atol):
    for name in ("video", "depth", "action", "proprio"):
        a, b = getattr(one.streams, name), getattr(other.streams, name)
        assert a.dtype == b.dtype == torch.float32 and a.shape == b.shape
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-3)
    for name in ("action_valid", "proprio_valid", "depth_valid"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.instructions == other.instructions


def test_latents_and_pixels_give_the_same_batches(folder, store, fitted):
    latent, pixel = latent_batches(folder, store, fitted), pixel_batches(store, fitted)
    for step in (0, 1, 11):
        assert_same(latent.train(step), pixel.train(step), atol=1e-3)
    for one, other in zip(latent.validation(), pixel.validation(), strict=True):
        assert_same(one, other, atol=1e-3)
    assert latent.train(0).streams.video.shape == (7, 4, 2, 2, 2, 3)


def test_batches_are_a_function_of_the_step(folder, store, fitted):
    one, other = latent_batches(folder, store, fitted), latent_batches(folder, store, fitted)
    later = one.train(5)
    for step in range(5):
        other.train(step)
    assert_same(other.train(5), later, atol=0)
    assert not torch.equal(one.train(6).streams.video, later.streams.video)
    for first, again in zip(one.validation(), one.validation(), strict=True):
        assert_same(first, again, atol=0)


def test_ranks_share_every_batch(folder, store, fitted):
    training, held_out = (LatentClips(folder, store, fitted, SETTINGS, part) for part in split(store, 1))
    sizes = {"batch_size": 4, "seed": 3, "validation_batches": 3}
    whole = ClipBatches(training, held_out, **sizes)
    shares = [ClipBatches(training, held_out, **sizes, rank=rank, ranks=2) for rank in range(2)]
    every = [whole.train(2), *whole.validation()]
    for batch, *parts in zip(every, *([share.train(2), *share.validation()] for share in shares), strict=True):
        assert len(parts[0]) == len(parts[1])
        assert torch.equal(torch.cat([part.streams.video for part in parts]), batch.streams.video)
        assert parts[0].instructions + parts[1].instructions == batch.instructions
    few = [ClipBatches(training, held_out, batch_size=40, seed=0, rank=rank, ranks=8) for rank in range(8)]
    assert {len(next(iter(batches.validation()))) for batches in few} == {-(-min(len(held_out), 320) // 8)}


def test_the_clips_of_a_step_are_named(folder, store, fitted):
    latent, pixel = latent_batches(folder, store, fitted), pixel_batches(store, fitted)
    names, batch = latent.ids(11), latent.train(11)
    assert names == pixel.ids(11) and len(names) == 7 and len(set(names)) > 1
    for name, proprio in zip(names, batch.streams.proprio, strict=True):
        assert (name.dataset, name.environment) == (store.root.name, store.info(name.episode).environment)
        states, _ = store.vectors(name.episode, fitted)
        assert np.allclose(fitted.proprio.normalise(states[name.row]), proprio[0])
    training = LatentClips(folder, store, fitted, SETTINGS, split(store, 1)[0])
    shares = [ClipBatches(training, training, batch_size=6, seed=3, rank=rank, ranks=2) for rank in range(2)]
    assert shares[0].ids(4) == shares[1].ids(4) == ClipBatches(training, training, batch_size=6, seed=3).ids(4)


def test_latents_know_the_pixels_that_they_were_made_from(folder, store, fitted):
    clips = LatentClips(folder, store, fitted, SETTINGS, [1, 2])
    last = len(clips) - 1
    seen, [name] = clips.recorded(last), clips.ids(np.array([last]))
    again = ClipDataset(
        store, ClipIndex(store, fitted, FRAMES, episodes=[2], start_stride=2), fitted, SETTINGS.transform
    )
    assert name.episode == 2 and np.array_equal(seen.rgb, again[len(again) - 1].rgb)


def test_versions_are_shown_in_turns_each_as_its_pixels_would_be(store, fitted, tmp_path):
    jitter = {"colour_jitter": (0.2, 0.0, 0.2, 0.05)}  # contrast is that to the mean of all frames shown together
    settings = SETTINGS.model_copy(update={"transform": SETTINGS.transform.model_copy(update=jitter)})
    for version in range(3):
        own = settings.model_copy(update={"version": version})
        encode_all(LatentPlan(folder_of(tmp_path, version), store, fitted, own, shard_episodes=2))
    versions = LatentClips(tmp_path, store, fitted, settings, [1, 4], versions=3)
    plain = LatentClips(tmp_path, store, fitted, settings, [1, 4])
    clips, index = np.arange(len(plain)), ClipIndex(store, fitted, FRAMES, episodes=[1, 4], start_stride=2)
    assert len(versions) == len(plain)
    seen = []
    for draw in range(3):
        batch = versions.batch(clips, np.full(len(clips), draw))
        seen.append(batch.streams.video)
        for clip in (0, 3, len(clips) - 1):
            episode, rows = index.window(clip)
            version = (clip + draw) % 3
            seed, transform = crc32(f"{episode} {version}".encode()), settings.transform
            transform = transform.model_copy(update={"train": version > 0})
            pixels = load_clip(store, episode, rows, fitted, batch.instructions[clip], transform=transform, seed=seed)
            one = collate([pixels], fitted, toy_encode)
            for name in ("video", "depth", "action", "proprio"):
                wanted, found = getattr(one.streams, name)[0], getattr(batch.streams, name)[clip]
                torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    assert (torch.stack(seen).std(dim=0).amax(dim=(1, 2, 3, 4, 5)) > 0.01).all()
    again = versions.batch(clips, np.full(len(clips), 3))
    assert torch.equal(again.streams.video, seen[0])
    shown = np.flatnonzero(clips % 3 == 0)
    assert torch.equal(seen[0][shown], plain.batch(clips, clips * 0).streams.video[shown])


def test_a_version_that_is_missing_is_named(folder, store, fitted):
    with pytest.raises(ValueError, match=r"version-1/shard-00000.safetensors is missing or damaged"):
        LatentClips(folder, store, fitted, SETTINGS, [1], versions=2)


def test_validity(folder, store, fitted):
    clips = LatentClips(folder, store, fitted, SETTINGS, [0])
    last = len(clips) - 1  # starts on row 14 of 18: 4 of its 8 actions were recorded
    batch = clips.batch(np.array([0, last]), np.array([0, 0]))
    assert batch.action_valid[0, :, :4].all() and not batch.action_valid[:, :, 4:].any()
    assert batch.action_valid[1, :4, :4].all() and not batch.action_valid[1, 4:].any()
    assert not batch.streams.action[~batch.action_valid].any()
    assert batch.proprio_valid[:, :, :4].all() and not batch.proprio_valid[:, :, 4:].any()
    assert batch.depth_valid.all()
    wanted = fitted.action.normalise(store.vectors(0)[1][:8])
    np.testing.assert_array_equal(batch.streams.action[0].numpy(), wanted)


def test_wordings_vary_with_the_draw(folder, store, fitted):
    clips = LatentClips(folder, store, fitted, SETTINGS, [2])
    texts = {clips.batch(np.array([1]), np.array([draw])).instructions[0] for draw in range(12)}
    assert texts == {"reach the ball", "touch ball number 2"}


def clip_of(store, fitted) -> Clip:
    return ClipDataset(store, ClipIndex(store, fitted, FRAMES), fitted, SETTINGS.transform)[0]


def test_collate_marks_clips_without_depth(store, fitted):
    clip = clip_of(store, fitted)
    batch = collate([clip, clip.replace(depth_m=None)], fitted, toy_encode)
    assert batch.depth_valid[0].all() and not batch.depth_valid[1].any() and batch.streams.depth.isfinite().all()
    bare = collate([clip.replace(depth_m=None)], fitted, toy_encode)
    assert bare.streams.depth is None and not bare.depth_valid.any()


def test_a_camera_without_depth_and_a_sensors_holes_carry_no_loss(store, fitted):
    clip = clip_of(store, fitted)
    holes = clip.depth_m.copy()
    holes[0] = 0  # this camera measured nothing
    holes[1, 0, :16, :16] = 0  # a hole as large as a latent, in the first frame
    holes[1, 1:, :8, 16:32] = 0  # half a latent in all later ones
    holes[1, 1:, :9, 32:48] = 0  # more than half
    sensor = fitted.cameras[1].model_copy(update={"unknown_depth": "missing"})
    robot = fitted.model_copy(update={"cameras": (fitted.cameras[0], sensor)})
    valid = collate([clip.replace(depth_m=holes)], robot, toy_encode).depth_valid[0]
    assert not valid[:, 0].any()
    wanted = torch.ones(2, 2, 3, dtype=torch.bool)
    wanted[0, 0, 0] = wanted[1, 0, 2] = False
    assert torch.equal(valid[:, 1], wanted)
    assert collate([clip.replace(depth_m=holes)], fitted, toy_encode).depth_valid[0, :, 1].all()


def test_shards_without_depth_beside_shards_with_it(store, fitted, tmp_path):
    plan = LatentPlan(tmp_path, store, fitted, SETTINGS, shard_episodes=2)
    encode_all(plan)
    whole = LatentClips(tmp_path, store, fitted, SETTINGS, range(6))
    shard = Shard(plan.path(0))
    kept = ("video", "starts", "episodes", "proprio", "actions")
    write_shard(plan.path(0), {name: shard.read(name) for name in kept}, shard.about)
    clips = LatentClips(tmp_path, store, fitted, SETTINGS, range(6))
    chosen, draws = np.array([0, len(clips) - 1]), np.zeros(2, int)
    one, other = clips.batch(chosen, draws), whole.batch(chosen, draws)
    assert not one.depth_valid[0].any() and torch.equal(one.depth_valid[1], other.depth_valid[1])
    assert not one.streams.depth[0].any() and torch.equal(one.streams.depth[1], other.streams.depth[1])
    assert torch.equal(one.streams.video, other.streams.video)
    assert clips.batch(chosen[:1], draws[:1]).streams.depth is None


def test_other_processes_read_the_same(folder, store, fitted):
    clips = LatentClips(folder, store, fitted, SETTINGS, [1, 4, 5])
    chosen = np.array([0, 5, len(clips) - 1])
    here = clips.batch(chosen, chosen)  # files are open now
    child = get_context("fork").Process(target=lambda: assert_same(clips.batch(chosen, chosen), here, atol=0))
    child.start()
    child.join()
    assert child.exitcode == 0
    with ThreadPoolExecutor(4) as pool:
        for batch in pool.map(lambda _: clips.batch(chosen, chosen), range(12)):
            assert_same(batch, here, atol=0)
    assert_same(pickle.loads(pickle.dumps(clips)).batch(chosen, chosen), here, atol=0)


def test_few_shards_stay_open(folder, store, fitted, monkeypatch):
    monkeypatch.setattr("xwam.data.latents.OPEN_SHARDS", 1)
    clips = LatentClips(folder, store, fitted, SETTINGS, range(6))
    before = len(list(Path("/proc/self/fd").iterdir()))
    batch = clips.batch(np.arange(len(clips)), np.zeros(len(clips), int))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    one_by_one = [clips.batch(np.array([clip]), np.array([0])).streams.video for clip in range(len(clips))]
    assert torch.equal(batch.streams.video, torch.cat(one_by_one))


def test_a_batch_of_48_is_fast(folder, store, fitted):
    clips = LatentClips(folder, store, fitted, SETTINGS, range(6))
    batches = ClipBatches(clips, clips, batch_size=48, seed=0)
    batches.train(0)
    assert min(seconds(batches.train, step) for step in range(1, 20)) < 0.02


def test_reading_is_much_faster_than_decoding(folder, store, fitted):
    latent, pixel = latent_batches(folder, store, fitted), pixel_batches(store, fitted)
    slow, fast = (min(seconds(batches.train, step) for step in range(1, 4)) for batches in (pixel, latent))
    assert 5 * fast < slow  # at 48 x 64 pixels; at real sizes the ratio is far larger


def seconds(function, argument):
    """Of this thread's own work, whatever else the machine does."""
    start = time.thread_time()
    function(argument)
    return time.thread_time() - start
