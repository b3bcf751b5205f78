"""The network: what depends on what, that its fast ways equal the plain ones, and its size."""

import itertools

import pytest
import torch
from torch import Tensor

from xwam.core.streams import NoiseLevels, Streams
from xwam.model import transformer
from xwam.model.depth_stream import network_of
from xwam.model.tokens import AtLevel, Layout, frequencies, patchify, positions, rotations, unpatchify
from xwam.model.transformer import (
    KeysValues,
    TransformerConfig,
    WorldActionTransformer,
    attend_fused,
    attend_plain,
    gelu,
    rotated,
    rotated_at_once,
    rotated_plain,
)

SMALL = TransformerConfig(
    width=48,
    ffn_width=96,
    heads=2,
    blocks=3,
    depth_blocks=2,
    views=3,
    latent_channels=4,
    text_width=10,
    text_tokens=6,
    frequency_width=32,
    action_width=5,
    actions_per_frame=2,
    proprio_width=7,
)
WAN = TransformerConfig(
    width=3072,
    ffn_width=14336,
    heads=24,
    blocks=30,
    depth_blocks=10,
    views=3,
    latent_channels=48,
    text_width=4096,
    text_tokens=512,
    action_width=14,
    actions_per_frame=4,
    proprio_width=16,
)

STREAMS = ("video", "action", "proprio", "depth")


@pytest.fixture(scope="module")
def network() -> WorldActionTransformer:
    return awake(SMALL)


def awake(config: TransformerConfig) -> WorldActionTransformer:
    """A network whose outputs do not start at 0, and whose depth branch is no longer the trunk's copy."""
    torch.manual_seed(0)
    network = network_of(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def inputs(B=2, T=3, V=3, H=4, W=6, A=8, P=5, seed=0) -> tuple[Streams, NoiseLevels, Tensor]:
    g = torch.Generator().manual_seed(seed)
    video, action, proprio, text = (
        torch.randn(shape, generator=g) for shape in ((B, 4, T, V, H, W), (B, A, 5), (B, P, 7), (B, 6, 10))
    )
    levels = NoiseLevels.of_streams(torch.rand(B, generator=g), torch.rand(B, generator=g), T, A, P)
    return Streams(video, action, proprio), levels, text


def run(network, streams, levels, text, with_depth=True) -> Streams:
    return network(streams, levels, network.prepare_text(text), with_depth)


def assert_close(a: Streams, b: Streams, **tolerance) -> None:
    for name in STREAMS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), **tolerance)


# ---- what depends on what ------------------------------------------------------------------------------------------


def test_the_trunk_is_bit_for_bit_the_same_with_depth_and_without(network):
    with_depth, without = run(network, *inputs()), run(network, *inputs(), with_depth=False)
    assert without.depth is None and with_depth.depth.shape == with_depth.video.shape
    for name in ("video", "action", "proprio"):
        assert torch.equal(getattr(with_depth, name), getattr(without, name))


def test_depth_reads_every_stream_and_the_text(network):
    streams, levels, text = inputs()
    depth = run(network, streams, levels, text).depth
    for name in ("video", "action", "proprio"):
        changed = Streams(**{**vars(streams), name: getattr(streams, name) + 1})
        assert not torch.allclose(run(network, changed, levels, text).depth, depth, atol=1e-4)
    assert not torch.allclose(run(network, streams, levels, text + 1).depth, depth, atol=1e-4)


@pytest.mark.parametrize("sizes", [{"V": 1}, {"V": 2}, {"T": 1, "A": 1, "P": 1}, {"T": 5, "A": 32, "P": 9, "H": 2}])
def test_any_number_of_views_frames_actions_and_proprios(network, sizes):
    streams, levels, text = inputs(**sizes)
    answer = run(network, streams, levels, text)
    assert {name: x.shape for name, x in vars(answer).items()} == {
        **{name: getattr(streams, name).shape for name in ("video", "action", "proprio")},
        "depth": streams.video.shape,
    }


def test_samples_of_a_batch_do_not_meet(network):
    streams, levels, text = inputs(B=3)
    alone = NoiseLevels(levels.values[1:2], levels.video, levels.action, levels.proprio)
    one = run(network, streams.map(lambda x: x[1:2]), alone, text[1:2])
    assert_close(one, run(network, streams, levels, text).map(lambda x: x[1:2]), atol=1e-5, rtol=1e-4)


def test_a_short_text_is_read_with_its_padding(network):
    streams, levels, text = inputs()
    padded = torch.cat([text[:, :4], torch.zeros(2, 2, 10)], dim=1)
    assert_close(run(network, streams, levels, text[:, :4]), run(network, streams, levels, padded), atol=0, rtol=0)
    assert not torch.allclose(run(network, streams, levels, text).action, run(network, streams, levels, padded).action)


def test_depth_keys_of_a_text_wait_until_they_are_wanted(network):
    streams, levels, text = inputs()
    context = network.prepare_text(text)
    network(streams, levels, context)
    assert "depth" not in vars(context)
    network(streams, levels, context, with_depth=True)
    assert len(context.depth) == 2


@pytest.mark.parametrize("tokens", [4, 6])
def test_a_text_may_be_prepared_or_not(network, tokens):
    streams, levels, text = inputs()
    answers = []
    for given in (network.prepare_text(text[:, :tokens]), text[:, :tokens]):
        network.zero_grad()
        answer = network(streams, levels, given, with_depth=True)
        (answer.action.sum() + answer.depth.sum()).backward()
        answers.append((answer, [p.grad.clone() for p in network.parameters() if p.grad is not None]))
    assert_close(answers[0][0], answers[1][0], atol=0, rtol=0)
    for one, other in zip(answers[0][1], answers[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    network.zero_grad()


def test_views_are_told_apart_by_their_embedding_alone(network):
    streams, levels, text = inputs()
    swapped = Streams(streams.video.flip(3), streams.action, streams.proprio)
    with torch.no_grad():
        kept = network.view_embedding.weight.clone()
        assert not torch.allclose(
            run(network, swapped, levels, text).action, run(network, streams, levels, text).action, atol=1e-4
        )
        network.view_embedding.weight.zero_()
        same = run(network, streams, levels, text), run(network, swapped, levels, text)
        network.view_embedding.weight.copy_(kept)
    torch.testing.assert_close(same[0].action, same[1].action, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(same[0].video, same[1].video.flip(3), atol=1e-5, rtol=1e-4)


# ---- fast ways and their plain twins -------------------------------------------------------------------------------


def test_modulation_by_level_equals_modulation_by_element(network):
    streams, levels, text = inputs()
    each = NoiseLevels.of_elements(*(levels.of(name) for name in ("video", "action", "proprio")))
    assert each.values.shape[1] > levels.values.shape[1]
    assert_close(run(network, streams, levels, text), run(network, streams, each, text), atol=1e-6, rtol=1e-5)


def test_plain_attention_equals_fused_forward_and_backward():
    def results(way):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, n, 3, 8, requires_grad=True) for n in (5, 7, 7))
        answer = way(q, KeysValues(k, v))
        return answer, *torch.autograd.grad(answer.square().sum(), (q, k, v))

    for plain, fused in zip(results(attend_plain), results(attend_fused), strict=True):
        torch.testing.assert_close(plain, fused)


def test_the_network_is_the_same_by_either_attention(network, monkeypatch):
    answers = []
    for way in (attend_plain, attend_fused):
        monkeypatch.setattr(transformer, "attend", way)
        answers.append(run(network, *inputs()))
    assert_close(*answers, atol=1e-5, rtol=1e-4)


def test_pairs_turn_as_complex_numbers_as_they_do_plainly_forward_and_backward():
    rotation = rotations(Layout(2, 1, 2, 2, 3, 2), 2, 12, torch.device("cpu"))

    def results(way):
        torch.manual_seed(0)
        x = torch.randn(2, 13, 3, 12, requires_grad=True)
        turned = way(x, rotation)
        return turned, *torch.autograd.grad((turned * torch.arange(12)).sum(), x)

    for plain, at_once in zip(results(rotated_plain), results(rotated_at_once), strict=True):
        torch.testing.assert_close(plain, at_once)


def test_gelu_by_erf_is_within_what_bfloat16_can_tell():
    x = torch.linspace(-6, 6, 4001).bfloat16()
    exact = torch.nn.functional.gelu(x.double(), approximate="tanh")
    one_unit = torch.finfo(torch.bfloat16).eps * x.double().abs().clamp(min=0.25)
    assert ((gelu(x).double() - exact).abs() <= one_unit).all()
    torch.testing.assert_close(gelu(x.double()), exact, rtol=0, atol=0)


def test_a_network_of_exact_gelu_uses_it_in_its_feed_forward_layers():
    by_erf, by_tanh = (awake(SMALL.model_copy(update={"ffn_gelu": by})) for by in ("erf", "tanh"))
    by_erf.load_state_dict(by_tanh.state_dict())
    x = torch.randn(3, 48)
    up, down = by_erf.blocks[0].ffn.up, by_erf.blocks[0].ffn.down
    torch.testing.assert_close(by_erf.blocks[0].ffn(x), down(torch.nn.functional.gelu(up(x))))
    assert not torch.equal(by_erf.blocks[0].ffn(x), by_tanh.blocks[0].ffn(x))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bfloat16_autocast_stays_near_float32(weights):
    plain = run(awake(SMALL), *inputs())
    with torch.autocast("cpu", torch.bfloat16):
        cast = run(awake(SMALL).to(weights), *inputs())
    for name in STREAMS:
        error = (getattr(cast, name).float() - getattr(plain, name)).abs().max()
        assert error < 0.05 * getattr(plain, name).abs().max()


def test_every_parameter_learns():
    network = awake(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        answer = run(network, *inputs())
    sum(getattr(answer, name).float().square().mean() for name in STREAMS).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


# ---- positions, levels, patches ------------------------------------------------------------------------------------


def test_positions_are_those_of_the_paper():
    where = positions(Layout(frames=2, views=2, rows=1, columns=2, actions=8, proprios=5), actions_per_frame=2)
    video = [(t, 0, x) for t, _, x in itertools.product(range(2), range(2), range(2))]
    assert [tuple(row) for row in where[:8].tolist()] == video
    assert where[8:16, 0].tolist() == [i / 8 for i in range(8)]
    assert where[16:, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert where[8:, 1:].abs().max() == 0


def test_attention_sees_only_how_far_tokens_are_apart():
    angles = rotations(Layout(9, 1, 1, 1, 0, 0), 1, 24, torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, 24).expand(2, 1, 9, 1, 24)
    scores = (rotated(q, angles) * rotated(k, angles).roll(2, 1)).sum(-1)[0, 2:, 0]
    torch.testing.assert_close(scores, scores[:1].expand(7))


def test_rotations_cached_while_inferring_serve_training():
    layout = Layout(2, 1, 3, 3, 4, 2)
    rotations.cache_clear()
    with torch.inference_mode():
        first = rotations(layout, 2, 24, torch.device("cpu"))
    assert rotations(layout, 2, 24, torch.device("cpu")) is first and not first.is_inference()


def test_a_clean_level_is_told_by_cosines_of_nothing():
    assert frequencies(torch.zeros(1, 1), 8)[0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    torch.testing.assert_close(frequencies(torch.tensor([[0.25]]), 8)[0, 0, 0].item(), torch.tensor(250.0).cos().item())


def test_patches_there_and_back():
    video = torch.randn(2, 4, 3, 2, 4, 6)
    tokens = patchify(video, (1, 2, 2))
    of_head = tokens.unflatten(-1, (4, 4)).transpose(-1, -2).flatten(-2)  # a head orders channels last
    assert torch.equal(unpatchify(of_head, Layout(3, 2, 2, 3, 0, 0), (1, 2, 2)), video)


def test_patch_embedding_is_wans_convolution(network):
    video = torch.randn(1, 4, 3, 1, 4, 6)
    theirs = torch.nn.Conv3d.forward(network.patch_embedding, video.squeeze(3)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(network.patch_embedding(patchify(video, (1, 2, 2))), theirs)


# ---- sizes, beginnings, mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("added, billions, tensors", [(False, 4.9998, 825), (True, 6.6749, 1115)])
def test_full_size(added, billions, tensors):
    with torch.device("meta"):
        network = WorldActionTransformer(WAN if added else WAN.model_copy(update={"depth_blocks": 0}))
    ours = ("view_embedding", "action_", "proprio_")
    kept = {name: x for name, x in network.state_dict().items() if added or not name.startswith(ours)}
    assert len(kept) == tensors
    assert round(sum(x.numel() for x in kept.values()) / 1e9, 4) == billions


def test_a_new_network_answers_0_and_its_depth_branch_is_the_trunks_end():
    network = WorldActionTransformer(SMALL)
    answer = run(network, *inputs())
    assert all(getattr(answer, name).abs().max() == 0 for name in STREAMS)
    for depth, trunk in zip(network.depth_blocks, network.blocks[-2:], strict=True):
        assert all(torch.equal(x, trunk.state_dict()[name]) for name, x in depth.state_dict().items())


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda n: run(n, *inputs(V=4)), "4 views, but the network knows 1 to 3"),
        (lambda n: run(n, *inputs(H=3)), "latents of 3 x 6 do not split"),
        (lambda n: n.prepare_text(torch.zeros(1, 7, 10)), "7 tokens; cut it to text_tokens = 6"),
        (lambda n: SMALL.model_validate({**SMALL.model_dump(), "heads": 5}), "5 heads do not split width 48"),
        (lambda n: SMALL.model_validate({**SMALL.model_dump(), "depth_blocks": 4}), "depth_blocks is 4; give 0 to 3"),
        (lambda n: SMALL.model_validate({**SMALL.model_dump(), "patch": (2, 2, 2)}), "one latent frame"),
        (lambda n: SMALL.model_validate({**SMALL.model_dump(), "head": 2}), "head"),
    ],
)
def test_a_mistake_is_named_with_its_mend(network, call, said):
    with pytest.raises(ValueError, match=said):
        call(network)


def test_depth_is_refused_by_a_network_without_it():
    network = WorldActionTransformer(SMALL.model_copy(update={"depth_blocks": 0}))
    assert run(network, *inputs(), with_depth=False).depth is None
    with pytest.raises(ValueError, match="no depth branch"):
        run(network, *inputs())


def test_gradients_summed_by_level_are_those_of_a_selection():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    level = torch.tensor([1, 1, 0, 2, 1, 0])
    weights = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    plain, summed = values.index_select(1, level), AtLevel.apply(values, level)
    assert torch.equal(plain, summed)
    gradients = [torch.autograd.grad((x * weights).sum(), values)[0] for x in (plain, summed)]
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=1e-14)
