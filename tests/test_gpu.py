"""What only a GPU shows: the numbers of a CPU, runs that resume exactly, and the ways of training made for it.

    pytest -m gpu tests/test_gpu.py

In float32 without TF32, sums in another order are all that differs. It needs nothing beside xwam[model] and pytest.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh

from ranks import trainer_of, whole_batch
from test_parallel import losses_of, samples_of
from test_trainer import Killed, assert_same_run, die_at
from tiny_model import tiny_model, tiny_observation
from xwam.core.types import Dream
from xwam.flow.levels import levels_of
from xwam.flow.sampler import noise_like
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.lora import LoraConfig, add_lora, merge_lora
from xwam.train import optimizers, parallel
from xwam.wam import WorldActionModel

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
# Exact repetition needs it, and cuBLAS reads it once, before the first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

WAYS = {
    "adamw": {},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "offload": {"optimizer": "adamw_offload", "ema_on_host": True},
}
# Moments that differ in the last bit may get another code; neighbours are a few percent of a block's largest apart.
CLOSE = {"adamw": 1e-3, "adamw8bit": 2e-2, "offload": 1e-3}


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """No TF32: not in convolutions, nor in products, where the trainer asks for it; short rows get codes of 8 bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(optimizers, "BLOCK", 8)
    yield
    monkeypatch.undo()
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def repeatable():
    """The same numbers every time: sums by index, as the levels' gradients are, else come in any order."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def apart(one: Tensor, other: Tensor) -> float:
    """Relative distance of two tensors, wherever they are."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return ((one - other).norm() / other.norm().clamp(min=1e-12)).item()


def gradients(model: WorldActionModel, precision: str = "fp32", step: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of a batch, and the gradient of all weights in a row, on the CPU."""
    batch = whole_batch(step).to(model.device)
    model.zero_grad()
    with torch.autocast(model.device.type, torch.bfloat16, precision == "bf16"):
        losses = model.loss(batch, range(len(batch)))
    losses["total"].backward()
    grads = [parallel.whole(p.grad).flatten().cpu() for p in model.parameters() if p.grad is not None]
    return {name: x.detach().cpu() for name, x in losses.items()}, torch.cat(grads)


def assert_near(model: WorldActionModel, other: WorldActionModel, tolerance: float, precision: str = "fp32") -> None:
    """Both have the same losses and gradients."""
    (losses, grad), (others, other_grad) = gradients(model, precision), gradients(other, precision)
    for name in others:
        assert apart(losses[name], others[name]) < tolerance, name
    assert apart(grad, other_grad) < 10 * tolerance


# ---- the same numbers ------------------------------------------------------------------------------------------


def test_a_forward_is_that_of_a_cpu():
    answers = []
    for device in ("cpu", DEVICE):
        model, streams = tiny_model().to(device), whole_batch(0).streams.to(device)
        level = torch.linspace(0.3, 0.9, 4, device=device)
        levels = model.law.levels(level.expand(model.law.dice, -1))
        with torch.no_grad():
            velocity = model.velocity(["push", "pull it", "", "open the drawer"])
            answers.append(velocity(streams, levels_of(streams, *levels), True))
    for name in ("video", "action", "proprio", "depth"):
        assert apart(getattr(answers[1], name), getattr(answers[0], name)) < 1e-5, name


def test_losses_and_gradients_are_those_of_a_cpu():
    assert_near(tiny_model().train().to(DEVICE), tiny_model().train(), 1e-5)


def test_actions_are_those_of_a_cpu_in_any_batch():
    observations, model = [tiny_observation(), tiny_observation(1, "push")], tiny_model().to(DEVICE)
    ours, theirs = (m.act(observations, [1, 2]) for m in (model, tiny_model()))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-4)
    np.testing.assert_allclose(model.act(observations[1:], [2])[0].actions, ours[1].actions, atol=1e-4)


@pytest.mark.parametrize("given", [False, True])
def test_what_is_imagined_is_what_a_cpu_imagines(given):
    actions = np.linspace(-0.5, 0.5, 64, dtype=np.float32).reshape(16, 4) if given else None

    def dream(device: str) -> Dream:
        return tiny_model().to(device).imagine(tiny_observation(), 3, actions=actions, guidance_scale=1.5)

    ours, theirs = dream(DEVICE), dream("cpu")
    np.testing.assert_allclose(ours.chunk.actions, theirs.chunk.actions, atol=1e-3)
    np.testing.assert_allclose(ours.proprio, theirs.proprio, atol=1e-3)
    assert np.abs(ours.scene.rgb.astype(int) - theirs.scene.rgb).max() <= 1
    ours_m, theirs_m = ours.scene.depth_m, theirs.scene.depth_m
    close = np.isclose(ours_m, theirs_m, rtol=1e-3)
    assert close.mean() > 0.999, "all but what lies at the very border of what is known"


def test_the_autoencoder_is_that_of_a_cpu():
    torch.manual_seed(0)
    here = SmallAutoencoder(SmallAutoencoderConfig(channels=8, widths=(8, 8, 8)))
    there = SmallAutoencoder(here.config).to(DEVICE)
    there.load_state_dict(here.state_dict())
    video, windows = torch.rand(2, 3, 9, 32, 32) * 2 - 1, np.array([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])
    with torch.no_grad():
        latents = here.encode(video)
        assert apart(there.encode(video.to(DEVICE)), latents) < 1e-5
        assert apart(there.decode(latents.to(DEVICE)), here.decode(latents)) < 1e-5
        assert apart(there.encode_windows(video.to(DEVICE), windows), here.encode_windows(video, windows)) < 1e-5


def test_a_saved_model_is_loaded_onto_the_gpu(tmp_path):
    model = tiny_model().to(DEVICE)
    model.save(tmp_path / "model", {}, torch.float32)
    loaded = WorldActionModel.load(tmp_path / "model", DEVICE, torch.float32)
    assert loaded.device.type == DEVICE
    ours, theirs = (m.act([tiny_observation()], [1])[0].actions for m in (loaded, model))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_gpu_acts_and_imagines_in_bfloat16_unless_told_otherwise(tmp_path):
    model = tiny_model()
    model.save(tmp_path / "model", {}, torch.float32)
    half = WorldActionModel.load(tmp_path / "model", DEVICE)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    ours, theirs = (m.act([tiny_observation()], [1])[0].actions for m in (half, model))
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
    assert half.imagine(tiny_observation(), 1).scene.rgb.shape == model.imagine(tiny_observation(), 1).scene.rgb.shape


# ---- training --------------------------------------------------------------------------------------------------


def trained(run: Path, device: str = DEVICE, before=lambda step: None, **changes) -> Path:
    assert trainer_of(run, before, device=device, trackers=(), **{"loaders": 0, **changes}).fit()
    return run


@pytest.mark.parametrize("way", WAYS)
def test_a_run_has_the_losses_of_a_cpu(tmp_path, way):
    ours, theirs = (trained(tmp_path / device, device, **WAYS[way]) for device in (DEVICE, "cpu"))
    assert losses_of(ours) == pytest.approx(losses_of(theirs), rel=CLOSE[way])
    assert samples_of(ours) == pytest.approx(samples_of(theirs), rel=10 * CLOSE[way])


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path, repeatable, way):
    trained(tmp_path / "whole", **WAYS[way])
    with pytest.raises(Killed):
        trained(tmp_path / "broken", before=die_at(3), **WAYS[way])
    trained(tmp_path / "broken", **WAYS[way])
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_processes_and_pinned_memory_change_nothing(tmp_path, repeatable):
    for loaders in (0, 2):
        trained(tmp_path / str(loaders), loaders=loaders)
    assert_same_run(tmp_path / "0", tmp_path / "2")
    if DEVICE == "cuda":
        batch = whole_batch(0).pin_memory()
        assert batch.streams.video.is_pinned() and batch.action_valid.is_pinned()


def test_loss_falls_in_bfloat16(tmp_path):
    run = trained(tmp_path, precision="bf16", steps=40, validate_every=40, save_every=40, learning_rate=3e-3)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    totals = [line["losses"]["total"] for line in lines if "losses" in line]
    assert len(totals) == 40 and np.mean(totals[-5:]) < 0.8 * np.mean(totals[:5])


@pytest.mark.parametrize(
    ("recompute", "compiled", "precision", "tolerance"),
    [(True, False, "fp32", 1e-5), (False, True, "fp32", 1e-4), (True, True, "bf16", 2e-2)],
)
def test_prepared_blocks_train_as_plain_ones(recompute, compiled, precision, tolerance):
    plain, prepared = (tiny_model().train().to(DEVICE) for _ in range(2))
    parallel.prepare_blocks(prepared, recompute, compiled)
    assert_near(prepared, plain, tolerance, precision)


def test_compiled_blocks_act_as_plain_ones():
    plain, compiled = (tiny_model().to(DEVICE) for _ in range(2))
    parallel.prepare_blocks(compiled, recompute=False, compile=True)
    ours, theirs = (model.act([tiny_observation()], [1])[0].actions for model in (compiled, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def adapted(device: str, base: torch.dtype | None = None) -> WorldActionModel:
    model = tiny_model()
    add_lora(model, LoraConfig(rank=4), base)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_up"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train().to(device)


def test_adapters_learn_as_on_a_cpu_and_merge():
    ours = adapted(DEVICE)
    assert_near(ours, adapted("cpu"), 1e-5)
    before, _ = gradients(ours)
    merge_lora(ours)
    batch = whole_batch(0).to(DEVICE)
    assert apart(ours.loss(batch, range(4))["total"], before["total"]) < 1e-4


def test_adapters_learn_beside_weights_in_bfloat16():
    ours = adapted(DEVICE, torch.bfloat16)
    losses, _ = gradients(ours, "bf16")
    expected, _ = gradients(adapted(DEVICE))
    assert apart(losses["total"], expected["total"]) < 5e-2
    trained = [p for p in ours.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 3e-2)])
def test_one_rank_with_sharded_weights_trains_as_one_without(precision, tolerance):
    """Over NCCL: many ranks of one GPU it does not allow."""
    backend = "cpu:gloo,cuda:nccl" if DEVICE == "cuda" else "gloo"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        plain, sharded = (tiny_model().train().to(DEVICE) for _ in range(2))
        parallel.prepare_blocks(sharded, recompute=True, compile=False)
        mesh = init_device_mesh(DEVICE, (1,), mesh_dim_names=("shard",))
        parallel.shard_over(mesh, sharded, torch.device(DEVICE), precision, ("loss",))
        assert isinstance(sharded.transformer.blocks[0].ffn.up.weight, parallel.DTensor)
        assert_near(sharded, plain, tolerance, precision)
    finally:
        distributed.destroy_process_group()


def test_threads_draw_the_noise_that_one_draws():
    batch, seeds = whole_batch(0).streams, range(64)
    many = batch.map(lambda x: x[:1].expand(len(seeds), *x.shape[1:]))
    here, there = noise_like(many, seeds), noise_like(many.to(DEVICE), seeds)
    assert torch.equal(here.video, there.video.cpu()) and torch.equal(here.action, there.action.cpu())
