"""What a world must offer, and the worlds there are."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.embodiment import Embodiment
from xwam.core.types import Observation


class Environment(Protocol):
    """A task in a world. Rendering is apart from stepping, because nobody looks at most steps."""

    name: str
    embodiment: Embodiment
    instructions: tuple[str, ...]
    max_steps: int

    def reset(self, seed: int) -> None:
        """Starts an episode; the seed alone decides on its initial state."""

    def step(self, action: Float[np.ndarray, " D"]) -> bool:
        """Executes one action, in physical units; True while the task counts as solved."""

    def observe(self, depth: bool = False) -> Observation:
        """Renders all cameras now, with depth in metres if asked."""

    def layers(self) -> dict[str, UInt8[np.ndarray, "H W"]]:
        """What each pixel of every camera's image shows now: `BACKGROUND`, `ROBOT` or `OBJECT`."""

    def expert_action(self) -> Float[np.ndarray, " D"]:
        """What the scripted expert would do now."""

    def close(self) -> None:
        """Frees the renderer."""


# A module offers `make(task, height, width)`, GROUPS, tasks that go by one name, and DIFFICULTIES, by which results
# of a whole benchmark are told.
WORLDS: dict[str, str] = {"metaworld": "xwam.sim.metaworld"}


def make_environment(name: str, height: int = 128, width: int = 128) -> Environment:
    """The environment `world/task`, such as `metaworld/reach-v3`, with cameras of this size."""
    world, task = _split(name)
    factory: Callable[..., Environment] = import_module(WORLDS[world]).make
    return factory(task, height, width)


def tasks_of(names: Sequence[str]) -> tuple[str, ...]:
    """Environments by name, where a group, such as `metaworld/mt10`, stands for its tasks; each once, in order."""
    tasks: dict[str, None] = {}
    for name in names:
        world, task = _split(name)
        group = import_module(WORLDS[world]).GROUPS.get(task, (task,))
        tasks |= dict.fromkeys(f"{world}/{member}" for member in group)
    return tuple(tasks)


def difficulties_of(tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tasks by difficulty, if they are the whole of a benchmark that is told so; else empty."""
    worlds = {_split(task)[0] for task in tasks}
    for world in worlds:
        levels = import_module(WORLDS[world]).DIFFICULTIES
        named = {level: tuple(f"{world}/{task}" for task in members) for level, members in levels.items()}
        if set(tasks) == {task for members in named.values() for task in members}:
            return named
    return {}


def _split(name: str) -> tuple[str, str]:
    world, _, task = name.partition("/")
    if world not in WORLDS or not task:
        raise ValueError(f"unknown environment {name!r}: write world/task, with a world of {sorted(WORLDS)}")
    return world, task
