"""Training laws, sampling schedules, and that each schedule stays where its law has taught the network."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from xwam.flow.levels import (
    Asynchronous,
    Coupled,
    Independent,
    Schedule,
    covers,
    descent,
    forward_dynamics_schedule,
    inverse_dynamics_schedule,
    law_of,
    policy_schedule,
    shifted,
    synchronous_schedule,
    timestep,
    world_schedule,
)

GOLDEN = Path(__file__).parent / "parity_data" / "sampler.safetensors"

shifts = st.floats(1, 10)
laws = st.one_of(
    st.builds(Coupled, shift=shifts),
    st.builds(Independent, shift=shifts),
    st.builds(Asynchronous, shift=shifts, clean_action_probability=st.floats(0, 1)),
)
step_counts = st.tuples(st.integers(1, 60), st.integers(1, 60)).map(lambda n: {"video": max(n), "action": min(n)})


def draw(law, samples=64, seed=0):
    return law.levels(torch.rand(law.dice, samples, generator=torch.Generator().manual_seed(seed)))


@settings(deadline=None)
@given(laws, st.integers(0, 2**32))
def test_what_a_law_draws_lies_in_its_support(law, seed):
    video, action = draw(law, seed=seed)
    assert all(law.supports(v, a) for v, a in zip(video.tolist(), action.tolist(), strict=True))


@settings(deadline=None)
@given(laws, st.integers(0, 2**32))
def test_a_draw_is_a_function_of_the_seed(law, seed):
    assert all(torch.equal(x, y) for x, y in zip(draw(law, seed=seed), draw(law, seed=seed), strict=True))


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), shifts)
def test_the_time_shift_keeps_the_ends_and_the_order(a, b, shift):
    low, high = sorted((a, b))
    assert shifted(0.0, shift) == 0 and shifted(1.0, shift) == 1
    assert shifted(low, shift) <= shifted(high, shift) + 1e-12
    assert shifted(low, 1.0) == low


def test_the_asynchronous_law_has_the_shares_and_moments_of_its_definition():
    law = Asynchronous(shift=1.0, clean_action_probability=0.25)
    video, action = draw(law, samples=200_000)
    clean = action == 0
    assert clean.float().mean().item() == pytest.approx(0.25, abs=0.005)
    assert video[clean].mean().item() == pytest.approx(0.5, abs=0.01)
    b = (video - action)[~clean] / (1 - action[~clean])
    assert b.mean().item() == pytest.approx(0.6, abs=0.005), "the mean of Beta(1.5, 1) is 1.5 / 2.5"
    assert b.var().item() == pytest.approx(1.5 / (2.5**2 * 3.5), abs=0.005)


def test_the_time_shift_is_applied_to_what_is_drawn():
    plain, moved = draw(Asynchronous(shift=1.0)), draw(Asynchronous(shift=3.0))
    for x, y in zip(plain, moved, strict=True):
        torch.testing.assert_close(shifted(x, 3.0), y)


@settings(deadline=None)
@given(shifts, step_counts, st.floats(0, 1, exclude_max=True))
def test_the_asynchronous_law_covers_policy_world_and_forward_dynamics(shift, n, probability):
    law = Asynchronous(shift, probability)
    assert covers(law, policy_schedule(n["video"], n["action"], shift))
    assert covers(law, world_schedule(n["video"], n["action"], shift))
    assert covers(law, forward_dynamics_schedule(n["video"], shift))
    assert covers(law, synchronous_schedule(n["video"], shift))


@settings(deadline=None)
@given(shifts, step_counts)
def test_the_independent_law_covers_every_schedule(shift, n):
    law = Independent(shift)
    assert covers(law, world_schedule(n["video"], n["action"], shift))
    assert covers(law, inverse_dynamics_schedule(n["action"], shift))


@settings(deadline=None)
@given(shifts, st.integers(1, 60))
def test_the_coupled_law_covers_synchronous_sampling_alone(shift, steps):
    assert covers(Coupled(shift), synchronous_schedule(steps, shift))
    assert not covers(Coupled(shift), forward_dynamics_schedule(steps, shift))
    assert not covers(Coupled(), policy_schedule(50, 10))


def test_a_clean_video_with_noisy_actions_is_outside_the_asynchronous_law():
    assert not covers(Asynchronous(), inverse_dynamics_schedule())
    assert not Asynchronous(clean_action_probability=1.0).supports(0.9, 0.5)
    assert not Independent().supports(1.5, 0.5)


@settings(deadline=None)
@given(step_counts, shifts)
def test_the_policy_is_the_worlds_table_left_early(n, shift):
    policy, world = policy_schedule(n["video"], n["action"], shift), world_schedule(n["video"], n["action"], shift)
    assert policy.steps == n["action"] and world.steps == n["video"]
    assert policy.sigma_video == world.sigma_video[: policy.steps + 1]
    assert policy.sigma_action == world.sigma_action[: policy.steps + 1]
    assert policy.sigma_action[-1] == 0 and world.sigma_video[-1] == 0
    assert world.with_depth and not policy.with_depth


@settings(deadline=None)
@given(st.integers(1, 100), shifts)
def test_a_descent_falls_to_clean(steps, shift):
    sigmas = descent(steps, shift)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    assert all(1 > high > low for high, low in pairwise(sigmas))


@pytest.mark.parametrize("stream, steps", [("video", 50), ("action", 10)])
def test_a_descent_is_the_references_bit_for_bit(stream, steps):
    golden, sigmas = load_file(GOLDEN), descent(steps, shift=5.0)
    assert torch.equal(torch.tensor(sigmas), golden[f"schedule.{stream}.sigmas"])
    assert [timestep(sigma) for sigma in sigmas[:-1]] == golden[f"schedule.{stream}.timesteps"].tolist()


def test_the_network_is_told_truncated_timesteps():
    assert world_schedule(50, 10).network_levels(9) == (0.957, 0.356)
    assert world_schedule(50, 10).network_levels(49) == (0.092, 0.0)


def test_a_law_is_found_by_name():
    assert law_of("asynchronous", clean_action_probability=0.25) == Asynchronous(clean_action_probability=0.25)
    assert law_of("coupled", shift=3.0) == Coupled(3.0)
    assert law_of("independent") == Independent()


@pytest.mark.parametrize(
    "mistake, message",
    [
        (lambda: law_of("asynchronus"), "did you mean 'asynchronous'"),
        (lambda: law_of("zebra"), "choose one of coupled"),
        (lambda: law_of("coupled", clean_action_probability=0.5), "no setting 'clean_action_probability'"),
        (lambda: Asynchronous(clean_action_probability=1.5), "1.5; give one in 0 .. 1"),
        (lambda: world_schedule(5, 10), "10 action steps outnumber 5 video steps"),
        (lambda: descent(0, 5.0), "0 steps; give 1 or more"),
        (lambda: Schedule((0.5, 0.0), (0.5,)), "2 of video and 1 of action"),
        (lambda: Schedule((0.2, 0.5), (0.0, 0.0)), "must fall"),
        (lambda: Schedule((1.0, 0.5), (0.0, 0.0)), "below 1"),
    ],
)
def test_a_mistake_is_named_with_its_mend(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()
