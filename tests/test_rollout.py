"""Closed loop: success, film, instructions, and the interval of a success rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toy_world import ToyWorld
from xwam.core.types import ActionChunk
from xwam.policy.policy import ChunkQueue
from xwam.sim.rollout import rollout, wilson_interval


class Expert:
    """Plans by the world's own expert, and notes what it was shown."""

    def __init__(self, world, speed=1.0):
        self.world, self.speed, self.seen, self.resets = world, speed, [], 0

    def reset(self):
        self.resets += 1

    def act(self, observation):
        self.seen.append(observation)
        return ActionChunk(self.speed * np.repeat(self.world.expert_action()[None], 4, axis=0), 0.05)


def run(world=None, speed=1.0, execute=2, **options):
    world = world or ToyWorld()
    expert = Expert(world, speed)
    return rollout(world, ChunkQueue(expert, execute), seed=2, **options), expert, world


def test_an_episode_ends_with_success():
    result, expert, world = run()  # goal at 0.7 m, 0.1 m a step, solved within 5 cm
    assert result.success and (result.environment, result.seed) == ("toy/reach", 2)
    assert result.actions.shape == (7, 4)
    np.testing.assert_array_equal(result.actions, world.executed)
    assert expert.resets == 1 and len(expert.seen) == 4


def test_an_episode_that_is_never_solved_ends_at_the_limit():
    result, _, _ = run(ToyWorld(max_steps=11), speed=-1.0)
    assert not result.success and len(result.actions) == 11


def test_success_in_the_very_last_step_counts():
    assert run(ToyWorld(max_steps=7))[0].success
    assert not run(ToyWorld(max_steps=6))[0].success


def test_only_the_policy_looks_unless_a_film_is_wanted():
    result, expert, world = run()
    assert world.looks == len(expert.seen) and result.frames == {}


@pytest.mark.parametrize("every, shown", [(1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 3, 6, 7]), (100, [0, 7])])
def test_a_film_begins_with_the_start_and_ends_with_the_end(every, shown):
    result, _, world = run(film_every=every)
    assert set(result.frames) == set(world.embodiment.camera_names)
    assert [(frame[0, 0, 0] - 10) // 3 for frame in result.frames["front"]] == shown


def test_the_policy_is_asked_for_what_the_caller_wants():
    assert {seen.instruction for seen in run()[1].seen} == {"reach the goal"}
    assert {seen.instruction for seen in run(instruction="wait")[1].seen} == {"wait"}


def test_each_step_is_reported():
    steps = []
    run(on_step=steps.append)
    assert steps == list(range(7))


@pytest.mark.parametrize(
    "successes, episodes, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1),
    ],
)
def test_published_values_of_the_interval(successes, episodes, low, high):
    assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=2e-4)


@settings(deadline=None)
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_lies_in_0_1_holds_the_rate_and_mirrors(counts):
    successes, episodes = counts
    low, high = wilson_interval(successes, episodes)
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= successes / episodes <= high + 1e-12
    assert wilson_interval(episodes - successes, episodes) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_more_episodes_are_surer():
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (4, 40, 400))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("successes, episodes", [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, episodes):
    with pytest.raises(ValueError, match=f"{successes} successes of {episodes} episodes"):
        wilson_interval(successes, episodes)
