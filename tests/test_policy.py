"""Chunks become one action a step, and each request to a model has a seed of its own."""

import numpy as np
import pytest

from xwam.core.types import ActionChunk, Observation
from xwam.policy.policy import ChunkQueue, ModelPolicy

SEEN = Observation(images={}, proprio=np.zeros(1), instruction="reach")


class Counting:
    """Chunks of `length` actions: 100 * request + place in the chunk."""

    def __init__(self, length=4):
        self.length, self.requests, self.resets = length, 0, 0

    def reset(self):
        self.resets += 1

    def act(self, observation):
        self.requests += 1
        return ActionChunk(100.0 * self.requests + np.arange(self.length)[:, None], 0.1)


def test_the_first_actions_of_each_chunk_are_handed_out_in_order():
    queue, looks = ChunkQueue(Counting(), execute=3), []

    def observe():
        looks.append(len(handed))
        return SEEN

    handed = []
    for _ in range(7):
        handed.append(float(queue.next_action(observe)[0]))
    assert handed == [100, 101, 102, 200, 201, 202, 300]
    assert looks == [0, 3, 6], "the world is looked at only when a chunk is needed"


def test_a_whole_chunk_may_be_executed():
    queue = ChunkQueue(Counting(2), execute=2)
    assert [float(queue.next_action(lambda: SEEN)[0]) for _ in range(4)] == [100, 101, 200, 201]


def test_a_reset_forgets_the_rest_of_the_chunk():
    policy = Counting()
    queue = ChunkQueue(policy, execute=4)
    queue.next_action(lambda: SEEN)
    queue.reset()
    assert policy.resets == 1
    assert queue.next_action(lambda: SEEN) == [200]


def test_a_chunk_shorter_than_what_is_executed_is_refused():
    with pytest.raises(ValueError, match="chunk of 2 actions, 3 to execute"):
        ChunkQueue(Counting(2), execute=3).next_action(lambda: SEEN)


@pytest.mark.parametrize("execute", [0, -1])
def test_at_least_one_action_is_executed(execute):
    with pytest.raises(ValueError, match=f"execute is {execute}"):
        ChunkQueue(Counting(), execute)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_of_a_chunk_that_is_not_finite_is_executed(bad):
    class Broken(Counting):
        def act(self, observation):
            chunk = super().act(observation)
            chunk.actions[-1] = bad
            return chunk

    queue = ChunkQueue(Broken(), execute=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="not finite: nothing was executed"):
            queue.next_action(lambda: SEEN)


def seeds_of(policy, requests, noted):
    noted.clear()
    for _ in range(requests):
        policy.act(SEEN)
    return list(noted)


def test_requests_of_an_episode_have_seeds_of_their_own_that_repeat_with_the_episode():
    noted = []

    def act_many(observations, seeds):
        assert observations == [SEEN]
        noted.extend(seeds)
        return [ActionChunk(np.zeros((1, 1)), 0.1)]

    policy = ModelPolicy(act_many, seed=7)
    first = seeds_of(policy, 5, noted)
    assert len(set(first)) == 5 and all(type(seed) is int for seed in first)
    policy.reset()
    assert seeds_of(policy, 5, noted) == first
    assert seeds_of(ModelPolicy(act_many, seed=7), 5, noted) == first
    assert not set(seeds_of(ModelPolicy(act_many, seed=8), 5, noted)) & set(first)
