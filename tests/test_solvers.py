"""Euler and UniPC against exact solutions, and UniPC against diffusers."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xwam.flow.levels import descent
from xwam.flow.solvers import euler, unipc


def integrate(solver, velocity, x, sigmas):
    past = ()
    for sigma, sigma_next in pairwise(sigmas):
        x, past = solver(x, velocity(x, sigma), sigma, sigma_next, past)
    return x


def gaussian_velocity(mean, deviation):
    """The flow's exact velocity, E[noise - clean | x], for clean ~ N(mean, deviation^2)."""

    def velocity(x, sigma):
        spread = ((1 - sigma) * deviation) ** 2 + sigma**2
        centred = x - (1 - sigma) * mean
        clean = mean + (1 - sigma) * deviation**2 / spread * centred
        return (x - clean) / sigma

    return velocity


def gaussian_solution(x, sigma, mean, deviation):
    """Where that flow takes `x` from sigma to 0: as many deviations from the mean as it was."""
    spread = math.sqrt(((1 - sigma) * deviation) ** 2 + sigma**2)
    return mean + deviation * (x - (1 - sigma) * mean) / spread


def some_noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("solver", [euler, unipc])
@settings(deadline=None)
@given(mean=st.floats(-3, 3), steps=st.integers(1, 20), shift=st.floats(1, 8))
def test_a_known_clean_sample_is_reached_exactly(solver, mean, steps, shift):
    """If every noise leads to one clean sample, the flow's lines are straight and any step length will do."""
    reached = integrate(solver, gaussian_velocity(mean, 0.0), some_noise(5), descent(steps, shift))
    torch.testing.assert_close(reached, torch.full_like(reached, mean), atol=1e-9, rtol=0)


@pytest.mark.parametrize("solver, order", [(euler, 1), (unipc, 2)])
def test_the_error_falls_with_the_solvers_order(solver, order):
    """Halving the steps of a smooth flow, over an interval that has no singular end, divides the error by 2^order."""
    mean, deviation = 0.7, 0.5
    velocity, x = gaussian_velocity(mean, deviation), some_noise(64)

    def error(steps):
        sigmas = [0.9 - 0.8 * i / steps for i in range(steps + 1)]
        end = integrate(solver, velocity, x, sigmas)
        return (gaussian_solution(end, sigmas[-1], mean, deviation) - gaussian_solution(x, 0.9, mean, deviation)).abs()

    ratio = error(40).max() / error(80).max()
    assert ratio > 0.85 * 2**order, f"the error fell {ratio:.2f} times"


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
def test_unipc_walks_as_diffusers_does(steps, shift):
    numpy = pytest.importorskip("numpy")
    schedulers = pytest.importorskip("diffusers")
    theirs = schedulers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=2, solver_type="bh2"
    )
    theirs.set_timesteps(sigmas=numpy.linspace(0.999, 0, steps + 1)[:-1])

    def velocity(x, sigma):
        return torch.sin(3 * x) + sigma * x - 0.5

    sigmas = descent(steps, shift)
    ours = expected = some_noise(2, 3, 4).float()
    past = ()
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        expected = theirs.step(velocity(expected, sigma), theirs.timesteps[i], expected, return_dict=False)[0]
        ours, past = unipc(ours, velocity(ours, sigma), sigma, sigma_next, past)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", [euler, unipc])
def test_a_step_changes_nothing_that_it_is_given(solver):
    x = some_noise(3)
    v, kept = -x, x.clone()
    y, past = solver(x, v, 0.9, 0.6)
    again, past_again = solver(x, v, 0.9, 0.6)
    solver(y, -y, 0.6, 0.3, past)
    assert torch.equal(x, kept) and torch.equal(y, again) and len(past) == len(past_again)
