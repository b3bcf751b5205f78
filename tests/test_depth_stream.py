"""Depth denoised with the video, as channels or as tokens: what the trunk is given, what it answers, and learning."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from test_transformer import SMALL, STREAMS, awake, inputs, run
from test_wam import batch
from tiny_model import tiny_config, tiny_model, tiny_observation
from xwam.core.streams import NoiseLevels, Streams
from xwam.flow.levels import levels_of
from xwam.model.config import TransformerConfig
from xwam.model.depth_stream import DepthStreamTransformer, network_of
from xwam.model.transformer import WorldActionTransformer
from xwam.wam import WorldActionModel

WAYS = ("channels", "sequence")


def small(way: str) -> TransformerConfig:
    return SMALL.model_copy(update={"depth": way, "depth_blocks": 0})


def with_depth(**sizes) -> tuple[Streams, NoiseLevels, torch.Tensor]:
    streams, _, text = inputs(**sizes)
    generator = torch.Generator().manual_seed(7)
    streams = replace(streams, depth=torch.randn(streams.video.shape, generator=generator))
    sigmas = torch.rand(2, len(text), generator=generator)
    return streams, levels_of(streams, *sigmas, depth=True), text


@pytest.fixture(scope="module", params=WAYS)
def network(request) -> DepthStreamTransformer:
    return awake(small(request.param))


@pytest.mark.parametrize("sizes", [{}, {"V": 1}, {"V": 2, "T": 1, "A": 1, "P": 1}])
def test_every_stream_is_answered_in_its_shape(network, sizes):
    streams, levels, text = with_depth(**sizes)
    answer = run(network, streams, levels, text)
    assert all(getattr(answer, name).shape == getattr(streams, name).shape for name in STREAMS)
    zero = run(network, replace(streams, depth=torch.zeros_like(streams.depth)), levels, text)
    assert zero.depth.shape == streams.video.shape and zero.depth.isfinite().all()


def test_every_stream_reads_depth_and_depth_reads_every_stream(network):
    streams, levels, text = with_depth()
    before = run(network, streams, levels, text)
    for name in STREAMS:
        after = run(network, replace(streams, **{name: getattr(streams, name) + 1}), levels, text)
        for read in {name, "depth"} if name != "depth" else STREAMS:
            assert not torch.allclose(getattr(after, read), getattr(before, read), atol=1e-4), (name, read)


def test_views_fewer_than_the_network_knows_have_the_embeddings_that_they_always_have(network):
    """A view that is cut off changes nothing about which embedding its neighbours have."""
    streams, levels, text = with_depth(V=2)
    answer = run(network, streams, levels, text)
    with torch.no_grad():
        kept = network.view_embedding.weight.clone()
        network.view_embedding.weight[-len(kept) // 3 :] *= -9
        same = torch.equal(run(network, streams, levels, text).depth, answer.depth)
        network.view_embedding.weight[:1] *= -9
        other = torch.allclose(run(network, streams, levels, text).depth, answer.depth, atol=1e-3)
        network.view_embedding.weight.copy_(kept)
    assert same and not other


def told(network: DepthStreamTransformer, monkeypatch) -> tuple[Streams, NoiseLevels]:
    """What the trunk is given of two views with video at 0.7."""
    seen = []
    answer = WorldActionTransformer.forward

    def spy(self, streams, levels, *rest):
        seen.append((streams, levels))
        return answer(self, streams, levels, *rest)

    monkeypatch.setattr(WorldActionTransformer, "forward", spy)
    streams, _, text = with_depth(B=1, V=2)
    run(network, streams, levels_of(streams, torch.tensor([0.7]), torch.tensor([0.2]), depth=True), text)
    return streams, *seen[0]


def test_depth_of_the_given_frame_is_at_the_videos_level(monkeypatch):
    streams, seen, levels = told(awake(small("channels")), monkeypatch)
    assert torch.equal(seen.video, torch.cat([streams.video, streams.depth], dim=1)) and seen.depth is None
    assert levels.of("video")[0].tolist() == pytest.approx([0.7] * 3)
    streams, seen, levels = told(awake(small("sequence")), monkeypatch)
    assert torch.equal(seen.video[:, :, :, 0::2], streams.video)
    assert torch.equal(seen.video[:, :, :, 1::2], streams.depth)
    assert levels.of("video")[0].tolist() == pytest.approx([0, 0.7, 0, 0.7] + [0.7] * 8)


def test_without_depth_or_its_level_it_is_refused(network):
    streams, levels, text = with_depth()
    for bad in ((replace(streams, depth=None), levels), (streams, replace(levels, depth=None))):
        with pytest.raises(ValueError, match="give depth and its level"):
            run(network, *bad, text)


def test_the_default_is_the_plain_network_and_blocks_of_a_branch_are_refused():
    assert type(network_of(SMALL)) is WorldActionTransformer and SMALL.has_depth
    assert not SMALL.model_copy(update={"depth_blocks": 0}).has_depth
    with pytest.raises(ValueError, match="denoised as channels and needs no depth_blocks"):
        TransformerConfig.model_validate({**SMALL.model_dump(), "depth": "channels"})


# ---- in the whole model --------------------------------------------------------------------------------------------


def model_of(way: str, **changes) -> WorldActionModel:
    sizes = {"depth_blocks": 0} if way == "none" else {"depth_blocks": 0, "depth": way}
    network = tiny_config().transformer.model_copy(update=sizes)
    return tiny_model(transformer=network, **changes)


@pytest.mark.parametrize("way", [*WAYS, "none"])
def test_it_learns_and_imagines(way):
    model = model_of(way).train()
    optimizer = torch.optim.AdamW(model.transformer.parameters(), lr=1e-2)
    totals = []
    for _ in range(2):
        losses = model.loss(batch(model), [1, 2, 3])
        assert (losses["depth"] > 0) == (way != "none")
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(losses["total"].item())
    assert totals[1] < totals[0]
    dream = model.eval().imagine(tiny_observation(), seed=0)
    assert dream.scene.depth_m.any() == (way != "none")
    np.testing.assert_array_equal(dream.chunk.actions, model.act([tiny_observation()], [0])[0].actions)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("depth", [True, False])
def test_parts_of_a_batch_add_up_to_its_losses(way, depth):
    model = model_of(way, text_dropout=0.5).train()
    whole, seeds = batch(model, depth=depth), [3, 4, 5]
    counts = model.counts(whole, seeds)
    shares = [model.loss(whole[part], seeds[part], counts) for part in (slice(0, 1), slice(1, 3))]
    for name, loss in model.loss(whole, seeds).items():
        torch.testing.assert_close(shares[0][name] + shares[1][name], loss)


@pytest.mark.parametrize("way", WAYS)
def test_a_saved_model_is_the_same_model(way, tmp_path):
    model = model_of(way)
    model.save(tmp_path, {}, torch.float32)
    again = WorldActionModel.load(tmp_path).imagine(tiny_observation(), seed=1, guidance_scale=2.0)
    once = model.imagine(tiny_observation(), seed=1, guidance_scale=2.0)
    np.testing.assert_array_equal(once.scene.depth_m, again.scene.depth_m)
