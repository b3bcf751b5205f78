"""Encoding for a run: whoever does it, training from it is training from pixels and with the live text encoder."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

from recordings import robot
from tiny_wan import SMALL_TEXT
from toy_runs import FRAMES, build_home, run_of, small_codec
from xwam.data import sources
from xwam.data.batches import PixelClips
from xwam.data.clips import ClipDataset, ClipIndex
from xwam.data.episodes import EpisodeStore
from xwam.data.latents import LatentClips
from xwam.data.processes import in_processes
from xwam.data.statistics import fit_embodiment
from xwam.data.texts import StoredText
from xwam.encode import encode
from xwam.model.autoencoders import SmallAutoencoder
from xwam.model.text import TextEncoder
from xwam.model.wan import UMT5TextEncoder
from xwam.train.encoding import (
    Summary,
    encode_ahead,
    first_piece,
    latent_settings,
    load_autoencoder,
    stored_text,
)
from xwam.train.runs import ModelRun
from xwam.wam import WorldActionModel


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return build_home(tmp_path_factory.mktemp("home"))


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def ahead(run: ModelRun, workers: int = 1, **changes) -> Summary:
    return encode_ahead(run.encoding_job(**changes), in_processes(workers), wait=False)


@pytest.fixture(scope="module")
def wan_run(home) -> ModelRun:
    run = run_of(home, home / "wan-latents", wan=True)
    assert ahead(run, shard_episodes=2) == Summary(pieces=3, made=3, stale=0, claimed=0)
    return run


# ---- pixels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wan", [False, True])
@pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_training_sees_the_latents_of_the_pixels(home, tmp_path, wan, dtype, error):
    run = run_of(home, tmp_path, wan, latents_dtype=dtype)
    job, store = run.encoding_job(), EpisodeStore(home / "data")
    ahead(run)
    fitted = fit_embodiment(store, robot(), range(4))
    autoencoder = load_autoencoder(Path(run.autoencoder), run.model.autoencoder)

    @torch.no_grad()
    def encode_pixels(video):
        latents = autoencoder.encode(rearrange(video, "b v c f h w -> (b v) c f h w"))
        return rearrange(latents, "(b v) c t h w -> b c t v h w", v=2)

    index = ClipIndex(store, fitted, FRAMES, episodes=[0, 2, 3], start_stride=2)
    pixels = PixelClips(ClipDataset(store, index, fitted, job.transform), fitted, encode_pixels)
    latents = LatentClips(tmp_path, store, fitted, latent_settings(job, autoencoder), [0, 2, 3])
    assert len(latents) == len(pixels)
    clips = np.random.default_rng(0).permutation(len(pixels))
    one, other = latents.batch(clips, clips % 3), pixels.batch(clips, clips % 3)
    for name in ("video", "depth", "action", "proprio"):
        a, b = getattr(one.streams, name), getattr(other.streams, name)
        stored = name in ("video", "depth")
        torch.testing.assert_close(
            a, b, atol=error * b.abs().max().item() if stored else 0, rtol=error if stored else 0
        )
    for name in ("action_valid", "proprio_valid", "depth_valid"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.instructions == other.instructions


def test_a_run_trains_on_versions_and_validates_on_what_is_seen_in_use(home, tmp_path, capsys):
    run = run_of(home, tmp_path, versions=2)
    run = run.model_copy(update={"model": run.model.model_copy(update={"crop_ratio": 0.8})})
    encode(run, workers=1, engine="processes", shard_episodes=2, verify=False)
    told = capsys.readouterr().out
    assert f"2 of 2 shards in {tmp_path}: 2 made" in told and f"2 of 2 shards in {tmp_path}/version-1: 2 made" in told
    data = run.dataset(load_autoencoder(Path(run.autoencoder), run.model.autoencoder))
    for clips, alike in ((data.training, False), (data.held_out, True)):
        chosen = np.arange(len(clips))
        first, second = (clips.batch(chosen, np.full(len(clips), draw)).streams.video for draw in (0, 1))
        assert torch.equal(first, second) == alike


# ---- workers -----------------------------------------------------------------------------------------------------


def test_any_number_of_processes_gives_the_same_bytes(home, tmp_path):
    torch.set_float32_matmul_precision("medium")  # as a trainer leaves it
    try:
        assert ahead(run_of(home, tmp_path / "one"), shard_episodes=1).made == 4
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert ahead(run_of(home, tmp_path / "two"), workers=2, shard_episodes=1).made == 4
    assert shards(tmp_path / "one") == shards(tmp_path / "two")


def test_training_waits_for_what_others_are_at(home, tmp_path, monkeypatch):
    monkeypatch.setattr("xwam.train.encoding.POLL_S", 0.01)
    job, claim = run_of(home, tmp_path).encoding_job(shard_episodes=2), tmp_path / "claims" / "shard-00001"
    claim.parent.mkdir()
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert encode_ahead(job, in_processes(1), wait=False) == Summary(pieces=2, made=1, stale=0, claimed=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(encode_ahead, job, in_processes(1), wait=True)
        time.sleep(0.3)
        assert not waiting.done()
        claim.unlink()  # as a worker that was stopped does
        assert waiting.result(timeout=20) == Summary(pieces=2, made=1, stale=0, claimed=0)


def test_retrained_weights_make_all_stale(home, tmp_path):
    run = run_of(home, tmp_path / "latents", autoencoder=str(tmp_path))
    save_file(SmallAutoencoder(small_codec()).state_dict(), tmp_path / "autoencoder.safetensors")
    assert ahead(run, shard_episodes=2) == Summary(pieces=2, made=2, stale=0, claimed=0)
    assert ahead(run) == Summary(pieces=2, made=0, stale=0, claimed=0)
    weights = SmallAutoencoder(small_codec()).state_dict()
    save_file(weights, tmp_path / "autoencoder.safetensors")
    assert ahead(run) == Summary(pieces=2, made=2, stale=2, claimed=0)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, 0),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 15),
        ({"SLURM_ARRAY_TASK_ID": "11", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "2"}, 10),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "5"}, 4),
        ({"RANK": "9", "WORLD_SIZE": "4"}, 5),
    ],
)
def test_ranks_begin_at_different_shards(monkeypatch, environment, first):
    for name in ("RANK", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert first_piece(20) == first


class FakeRay:
    """Ray as far as it is used: tasks run when they are waited for, the last one first."""

    def __init__(self):
        self.asked = []

    def init(self, **settings):
        self.asked.append(settings)

    def cluster_resources(self):
        return {"CPU": 4.0, "GPU": 2.0}

    def remote(self, **needs):
        self.asked.append(needs)
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function, arguments))

    def wait(self, tasks):
        return tasks[-1:], tasks[:-1]

    def get(self, tasks):
        return [function(*arguments) for function, arguments in tasks]


def test_ray_makes_a_task_of_each_shard(home, tmp_path, monkeypatch, capsys):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    encode(run_of(home, tmp_path / "ray"), 1, "ray", 2, False)
    assert "2 of 2 shards" in capsys.readouterr().out
    assert ray.asked == [{"ignore_reinit_error": True}, {"num_cpus": 1, "num_gpus": 0}]
    ahead(run_of(home, tmp_path / "here"), shard_episodes=2)
    assert shards(tmp_path / "ray") == shards(tmp_path / "here")


def test_without_ray_the_package_to_install_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match="pip install ray"):
        encode(run_of(home, tmp_path), 1, "ray", None, False)


# ---- text --------------------------------------------------------------------------------------------------------


def test_stored_text_gives_the_loss_of_the_live_encoder(home, wan_run):
    job = wan_run.encoding_job()
    torch.manual_seed(0)
    stored = WorldActionModel(wan_run.model, text_encoder=stored_text(job)).train()
    live = WorldActionModel(wan_run.model, home / "tokenizer")
    live.load_state_dict(stored.state_dict(), strict=False)
    live.text_encoder = UMT5TextEncoder.load(home / "umt5", home / "tokenizer", wan_run.model.text)
    live.train()
    for model in (stored, live):
        torch.nn.init.normal_(model.transformer.head.linear.weight, generator=torch.Generator().manual_seed(1))
    clips = latent_clips(wan_run)
    batch = clips.batch(np.arange(4), np.array([0, 1, 2, 3]))
    assert len(set(batch.instructions)) > 1
    one, other = (model.loss(batch, range(4)) for model in (stored, live))
    torch.testing.assert_close(one["total"], other["total"], rtol=1e-6, atol=0)
    changed = stored.loss(replace(batch, instructions=batch.instructions[::-1]), range(4))
    assert not torch.equal(changed["total"], one["total"])
    assert not any(name.startswith("text_encoder") for name in stored.state_dict())


def latent_clips(run: ModelRun) -> LatentClips:
    job, store = run.encoding_job(), EpisodeStore(run.data.dataset)
    settings = latent_settings(job, load_autoencoder(Path(run.autoencoder), run.model.autoencoder))
    return LatentClips(Path(job.folder), store, fit_embodiment(store, robot(), range(4)), settings, range(4))


def test_an_unknown_instruction_is_named(wan_run):
    stored = stored_text(wan_run.encoding_job())
    assert isinstance(stored, TextEncoder) and (stored.tokens, stored.width) == (12, 32)
    assert stored.encode(["reach the ball", "", "touch ball number 3"]).shape == (3, 12, 32)
    with pytest.raises(ValueError, match="no embedding of instruction 'fly away' in .*: run `xwam encode`"):
        stored.encode(["reach the ball", "fly away"])


def test_text_of_another_encoder_is_refused_and_encoded_again(home, wan_run, tmp_path):
    weights = tmp_path / "umt5"
    UMT5TextEncoder.from_config(**SMALL_TEXT).model.save_pretrained(weights)
    run = run_of(home, tmp_path / "latents", wan=True, text_encoder=str(weights))
    ahead(run, shard_episodes=4)
    before = stored_text(run.encoding_job()).encode(["reach the ball"])
    UMT5TextEncoder.from_config(**SMALL_TEXT).model.save_pretrained(weights)
    with pytest.raises(ValueError, match="no embeddings of this text encoder"):
        stored_text(run.encoding_job())
    assert ahead(run) == Summary(pieces=2, made=1, stale=1, claimed=0)
    assert not torch.equal(stored_text(run.encoding_job()).encode(["reach the ball"]), before)


def test_the_encoders_files_are_hashed_once(wan_run, monkeypatch):
    monkeypatch.setattr(sources, "content_digest", lambda file: pytest.fail(f"{file} is hashed again"))
    monkeypatch.setattr("xwam.train.encoding.content_digest", sources.content_digest)
    assert isinstance(stored_text(wan_run.encoding_job()), StoredText)


def test_a_run_trains_without_its_text_encoder_and_exports_with_it(home, wan_run, tmp_path):
    exported = wan_run.model_copy(update={"export_dtype": "float32"}).train_in(tmp_path / "run")
    model = WorldActionModel.load(exported)
    live = UMT5TextEncoder.load(home / "umt5", home / "tokenizer", wan_run.model.text)
    assert torch.equal(model.text_encoder.encode(["reach the ball"]), live.encode(["reach the ball"]))
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*/model.safetensors"))
    assert not [name for name in load_file(checkpoint) if "text_encoder" in name]


def test_umt5_needs_its_files(home, tmp_path):
    with pytest.raises(ValueError, match="UMT5 is not trained: give its weights as `text_encoder`"):
        run_of(home, tmp_path, wan=True, text_encoder=None).encoding_job()
