"""Closed loop: success, film, instructions, and the interval of a success rate."""

import numpy as np
import pytest

from toy_world import ToyWorld
from xwam.core.types import ActionChunk
from xwam.policy.policy import ChunkQueue
from xwam.sim.rollout import rollout


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
