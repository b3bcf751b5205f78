"""The denoising loop: what moves, what stays, what is asked of the network, and that a sample stands alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xwam.core.streams import Streams
from xwam.flow.levels import (
    descent,
    forward_dynamics_schedule,
    inverse_dynamics_schedule,
    levels_of,
    policy_schedule,
    synchronous_schedule,
    world_schedule,
)
from xwam.flow.sampler import guided, noise_like, sample, started
from xwam.flow.solvers import euler, unipc

NAMES = ("video", "action", "proprio")


def streams(B=2, C=3, T=3, V=2, H=2, W=3, A=8, Da=4, P=5, Dp=6, seed=0) -> Streams:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"video": (B, C, T, V, H, W), "action": (B, A, Da), "proprio": (B, P, Dp)}
    return Streams(**{name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})


class Network:
    """A stand-in: a smooth velocity in which every stream feels the others and the levels; it records its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, noisy, levels, with_depth):
        self.calls.append((noisy, levels, with_depth))
        felt = sum(getattr(noisy, name).flatten(1).mean(1) for name in NAMES) + levels.values.sum(1)
        answer = {name: torch.tanh(x + self._beside(felt, x)) for name, x in vars(noisy).items() if name in NAMES}
        return Streams(**answer, depth=noisy.video * 0.5 if with_depth else None)

    @staticmethod
    def _beside(felt, x):
        return felt.view(-1, *[1] * (x.ndim - 1))


def start_of(given_streams, schedule, seeds=(1, 2), **validity):
    return started(given_streams, noise_like(given_streams, seeds), schedule, **validity)


SCHEDULES = {
    "policy": policy_schedule(12, 4),
    "world": world_schedule(12, 4),
    "forward dynamics": forward_dynamics_schedule(12),
    "inverse dynamics": inverse_dynamics_schedule(4),
    "synchronous": synchronous_schedule(6),
}


@pytest.mark.parametrize("solver", [euler, unipc])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_what_is_given_stays_bit_for_bit_and_the_rest_moves(schedule, solver):
    present = streams()
    start = start_of(present, schedule)
    result = sample(Network(), start, schedule, solver)
    assert torch.equal(result.video[:, :, 0], present.video[:, :, 0])
    assert torch.equal(result.proprio[:, 0], present.proprio[:, 0])
    for name in NAMES:
        if schedule.sigmas(name)[0] == 0:
            assert torch.equal(getattr(result, name), getattr(present, name))
        else:
            assert not torch.isclose(getattr(result, name), getattr(start, name)).all()
        assert getattr(result, name).isfinite().all()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_call_a_step_and_depth_at_the_last_alone(schedule):
    network = Network()
    result = sample(network, start_of(streams(), schedule), schedule)
    asked = [with_depth for _, _, with_depth in network.calls]
    assert len(asked) == schedule.steps
    assert asked == [False] * (schedule.steps - 1) + [schedule.with_depth]
    assert all(noisy.depth is None for noisy, _, _ in network.calls)
    if schedule.with_depth:
        assert torch.equal(result.depth, network.calls[-1][0].video * 0.5), "the prediction at the last step's input"
    else:
        assert result.depth is None


def test_the_network_is_told_the_level_of_each_element():
    network, schedule = Network(), world_schedule(50, 10)
    sample(network, start_of(streams(), schedule), schedule)
    for row, video, action in [(0, 0.999, 0.999), (9, 0.957, 0.356), (10, 0.952, 0.0), (49, 0.092, 0.0)]:
        levels = network.calls[row][1]
        assert levels.of("video")[0].tolist() == pytest.approx([0, video, video])
        assert levels.of("action")[0].tolist() == pytest.approx([action] * 8)
        assert levels.of("proprio")[0].tolist() == pytest.approx([0] + [action] * 4)


@pytest.mark.parametrize("solver", [euler, unipc])
@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 1000))
def test_the_policys_actions_are_the_worlds(solver, action_steps, more_video_steps, seed):
    steps = action_steps + more_video_steps, action_steps
    present, noise = streams(seed=seed), noise_like(streams(), (seed, seed + 1))
    world, policy = world_schedule(*steps), policy_schedule(*steps)
    early = sample(Network(), started(present, noise, policy), policy, solver)
    finished = sample(Network(), started(present, noise, world), world, solver)
    assert torch.equal(early.action, finished.action) and torch.equal(early.proprio, finished.proprio)


@pytest.mark.parametrize("solver", [euler, unipc])
def test_a_linear_field_is_integrated_as_by_hand(solver):
    """v = x for action and v = -x for video: each stream walks its own levels, with a past of its own."""

    def velocity(noisy, levels, with_depth):
        return Streams(video=-noisy.video, action=noisy.action, proprio=torch.zeros_like(noisy.proprio))

    schedule = world_schedule(9, 4, with_depth=False)
    start = start_of(streams(), schedule)
    result = sample(velocity, start, schedule, solver)

    def walked(x, sign, sigmas):
        past = ()
        for sigma, sigma_next in pairwise(sigmas):
            x, past = solver(x, sign * x, sigma, sigma_next, past)
        return x

    torch.testing.assert_close(result.action, walked(start.action, 1, descent(4, 5.0)))
    torch.testing.assert_close(result.video[:, :, 1:], walked(start.video[:, :, 1:], -1, descent(9, 5.0)))


@pytest.mark.parametrize("solver", [euler, unipc])
def test_denoised_depth_walks_the_videos_levels_from_its_first_frame_on(solver):
    def velocity(noisy, levels, with_depth):
        assert torch.equal(levels.of("depth"), levels.of("video")[:, 1:2].expand(-1, 3))
        return noisy.map(torch.neg)

    schedule, plain = world_schedule(6, 3), streams()
    start = start_of(replace(plain, depth=torch.full_like(plain.video, 7.0)), schedule)
    for name in NAMES:
        assert torch.equal(getattr(start, name), getattr(start_of(plain, schedule), name)), "as without depth"
    walked, past = start.depth, ()
    for sigma, sigma_next in pairwise(schedule.sigma_video):
        walked, past = solver(walked, -walked, sigma, sigma_next, past)
    assert walked.abs().max() < 7, "what was given of depth is not read"
    torch.testing.assert_close(sample(velocity, start, schedule, solver).depth, walked)


@pytest.mark.parametrize("solver", [euler, unipc])
def test_many_steps_reach_the_exact_solution_of_a_linear_field(solver):
    """dx / d sigma = x, so x(0) = exp(-sigma_start) x(sigma_start)."""

    def velocity(noisy, levels, with_depth):
        return noisy

    schedule = synchronous_schedule(200, shift=1.0, with_depth=False)
    start = start_of(streams(), schedule)
    exact = start.action * torch.exp(torch.tensor(-schedule.sigma_action[0]))
    torch.testing.assert_close(sample(velocity, start, schedule, solver).action, exact, rtol=5e-3, atol=0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4), st.integers(0, 3))
def test_a_samples_noise_depends_on_its_seed_alone(seeds, which):
    which %= len(seeds)
    together = noise_like(streams(B=len(seeds)), seeds)
    alone = noise_like(streams(B=1), seeds[which : which + 1])
    for name in NAMES:
        assert torch.equal(getattr(together, name)[which], getattr(alone, name)[0])


def test_the_actions_noise_does_not_depend_on_the_videos_size():
    small, large = noise_like(streams(), (3, 4)), noise_like(streams(V=1, H=5, W=7), (3, 4))
    assert torch.equal(small.action, large.action) and torch.equal(small.proprio, large.proprio)


def test_a_sample_does_not_depend_on_its_batch():
    schedule, present = world_schedule(8, 4), streams(B=3)
    batch = sample(Network(), start_of(present, schedule, (5, 6, 7)), schedule)
    alone = sample(Network(), start_of(present.map(lambda x: x[1:2]), schedule, (6,)), schedule)
    for name in (*NAMES, "depth"):
        torch.testing.assert_close(getattr(batch, name)[1:2], getattr(alone, name), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", [euler, unipc])
def test_invalid_entries_stay_zero(solver):
    action_valid = torch.ones(2, 8, 4, dtype=torch.bool)
    proprio_valid = torch.ones(2, 5, 6, dtype=torch.bool)
    action_valid[0, :, 2:] = proprio_valid[1, :, 4:] = False
    present = streams()
    present = replace(present, action=present.action * action_valid, proprio=present.proprio * proprio_valid)
    validity = {"action_valid": action_valid, "proprio_valid": proprio_valid}
    schedule = policy_schedule(12, 4)
    result = sample(Network(), start_of(present, schedule, **validity), schedule, solver, **validity)
    for values, valid in ((result.action, action_valid), (result.proprio, proprio_valid)):
        assert (values[~valid] == 0).all() and (values[valid] != 0).all()


@pytest.mark.parametrize("name", ["world", "synchronous"])
def test_known_actions_are_what_the_network_sees_at_every_level(name):
    """At each step (1 - sigma) known + sigma noise, whatever the network would have done; states follow from it."""
    schedule, kept, network = SCHEDULES[name], streams(), Network()
    start, known = start_of(kept, schedule), streams(seed=9).action
    ended = sample(network, start, schedule, known_action=known)
    for (noisy, _, _), sigma in zip(network.calls, schedule.sigma_action, strict=False):
        torch.testing.assert_close(noisy.action, (1 - sigma) * known + sigma * start.action)
    torch.testing.assert_close(ended.action, known)
    other = sample(Network(), start, schedule, known_action=-known)
    assert (other.proprio - ended.proprio).abs().max() > 0.01 and (other.video - ended.video).abs().max() > 0.01


def test_progress_is_told_after_each_step():
    told = []
    schedule = world_schedule(6, 3)
    result = sample(Network(), start_of(streams(), schedule), schedule, on_step=lambda *told_now: told.append(told_now))
    assert [step for step, _ in told] == list(range(6))
    assert told[-1][1] is result
    assert torch.equal(told[2][1].action, result.action), "the actions are ready after their own steps"


def test_guidance_extrapolates_velocities_and_takes_the_conditional_depth():
    noisy, network = streams(), Network()
    levels = levels_of(noisy, torch.tensor([0.9, 0.9]), torch.tensor([0.5, 0.5]))

    def conditional(noisy, levels, with_depth):
        return Streams(noisy.video + 1, noisy.action + 1, noisy.proprio + 1, noisy.video * 7 if with_depth else None)

    def unconditional(noisy, levels, with_depth):
        assert not with_depth, "the unconditional half's depth would be thrown away"
        return noisy

    for with_depth in (False, True):
        answer = guided(conditional, unconditional, 3.0)(noisy, levels, with_depth)
        for name in NAMES:
            torch.testing.assert_close(getattr(answer, name), getattr(noisy, name) + 3)
        assert (answer.depth is not None) == with_depth
    assert torch.equal(answer.depth, noisy.video * 7)
    assert guided(network, unconditional, 1.0) is network


def test_a_wrong_number_of_seeds_is_named():
    with pytest.raises(ValueError, match="3 seeds for 2 samples"):
        noise_like(streams(B=2), (1, 2, 3))
