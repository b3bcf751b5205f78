"""The plain step that ours is measured against computes what ours does; the measuring itself, at tiny sizes."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="Wan's parts are measured: pip install 'xwam[wan]'")
pytest.importorskip("transformers", reason="Wan's parts are measured: pip install 'xwam[wan]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import training as benchmark

from tiny_wan import SMALL_TEXT
from xwam.model import transformer
from xwam.model.wan import UMT5TextEncoderConfig, WanAutoencoderConfig

TINY = {"width": 48, "ffn_width": 96, "heads": 2, "blocks": 2, "depth_blocks": 1, "text_width": 32, "text_tokens": 12}


@pytest.fixture(scope="module")
def config():
    parts = {"text": UMT5TextEncoderConfig(**SMALL_TEXT), "autoencoder": WanAutoencoderConfig(base_dim=4)}
    return benchmark.reduced((32, 32), **TINY).model_copy(update=parts)


@pytest.fixture(scope="module")
def trainings(config):
    return benchmark.trainings(config, batch=2)


def test_losses_and_gradients_of_all_ways_agree(trainings):
    losses = benchmark.check(trainings)
    assert losses["plain"] > 0 and losses["plain"] == pytest.approx(losses["latents"], rel=1e-5)


def test_ways_that_do_not_agree_are_not_compared(trainings):
    weight = trainings["latents"].network.blocks[0].ffn.up.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    with pytest.raises(AssertionError, match="latents: losses"):
        benchmark.check(trainings)
    with torch.no_grad():
        weight.copy_(kept)


def test_what_a_loss_keeps_for_its_gradient_is_less_than_plainly(trainings):
    plain, ours = (benchmark.saved_mb(trainings[way]) for way in ("plain", "latents"))
    assert 0 < ours < plain


def test_work_is_counted_by_part(config, trainings, monkeypatch):
    """The formula of the network's work is what a forward multiplies, times three."""
    monkeypatch.setattr(transformer, "attend", transformer.attend_plain)  # whose products are counted on a CPU, too
    forward = benchmark.counted(trainings["latents"].loss)
    assert benchmark.network_flops(config) == 3 * forward / 2  # a batch of 2
    assert all(count > 0 for count in benchmark.flops(config).values())


def test_the_step_of_a_gpu_runs_unchanged_on_a_cpu(config):
    without = config.model_copy(update={"transformer": config.transformer.model_copy(update={"depth_blocks": 0})})
    for asked in (config, without):
        measured = benchmark.utilisation(asked, "cpu", batch=1, steps=1, side=32, compiled=False)
        assert measured["tokens_per_second"] > 0 and measured["utilisation"] > 0
        assert measured["depth"] is (asked is config)
