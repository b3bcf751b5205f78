"""Acting: what a policy is, and how chunks of actions become one action a step."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from xwam.core.seeds import derived_seed
from xwam.core.types import ActionChunk, Observation


class Policy(Protocol):
    """Anything that acts; a model, a client of a server, a recorder and a scripted expert nest freely."""

    def reset(self) -> None:
        """Forgets the episode before."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next actions, in physical units."""


class ModelPolicy:
    """A world action model as a policy: each request of an episode has a seed of its own, so a rollout repeats.

    `act_many` is `WorldActionModel.act`, or anything of its signature.
    """

    def __init__(self, act_many: Callable[[Sequence[Observation], Sequence[int]], list[ActionChunk]], seed: int):
        self._act_many, self._seed, self._requests = act_many, seed, 0

    def reset(self) -> None:
        self._requests = 0

    def act(self, observation: Observation) -> ActionChunk:
        seed = derived_seed(self._seed, self._requests)
        self._requests += 1
        return self._act_many([observation], [seed])[0]


class ChunkQueue:
    """Hands out a policy's actions one by one and asks for new ones after `execute` of a chunk.

    Only part of a chunk is executed because its end was decided long ago, on an old observation.
    """

    def __init__(self, policy: Policy, execute: int):
        if execute < 1:
            raise ValueError(f"execute is {execute}: at least one action of each chunk must be executed")
        self._policy, self._execute = policy, execute
        self._queue: deque[np.ndarray] = deque()

    def reset(self) -> None:
        self._policy.reset()
        self._queue.clear()

    def next_action(self, observe: Callable[[], Observation]) -> Float[np.ndarray, " D"]:
        """The next action; `observe` is called only when a new chunk is needed, since rendering is dear."""
        if not self._queue:
            chunk = self._policy.act(observe())
            if len(chunk.actions) < self._execute:
                raise ValueError(
                    f"a chunk of {len(chunk.actions)} actions, {self._execute} to execute: lower `execute`"
                )
            if not np.isfinite(chunk.actions).all():
                raise ValueError("the policy returned actions that are not finite: nothing was executed")
            self._queue.extend(chunk.actions[: self._execute])
        return self._queue.popleft()
