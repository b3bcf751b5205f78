"""Closed loop: a policy in a world, episode by episode, and how often it succeeds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.types import Observation
from xwam.policy.policy import ChunkQueue
from xwam.sim.env import Environment


@dataclass(frozen=True)
class Rollout:
    """One episode: whether it succeeded, what was executed, and, if asked for, what the cameras saw."""

    environment: str
    seed: int
    success: bool
    actions: Float[np.ndarray, "A D"]
    frames: dict[str, UInt8[np.ndarray, "T H W 3"]] = field(default_factory=dict)


def rollout(
    environment: Environment,
    queue: ChunkQueue,
    seed: int,
    instruction: str | None = None,
    film_every: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Rollout:
    """Runs one episode until success or the environment's step limit.

    `film_every` keeps a frame of every camera each so many steps; without it only the policy's own looks are rendered.
    """
    environment.reset(seed)
    queue.reset()
    actions, film, success = [], [], False

    def observe() -> Observation:
        seen = environment.observe()
        return seen if instruction is None else replace(seen, instruction=instruction)

    for step in range(environment.max_steps):
        if film_every and step % film_every == 0:
            film.append(environment.observe().images)
        action = queue.next_action(observe)
        actions.append(action)
        success = environment.step(action)
        if on_step is not None:
            on_step(step)
        if success:
            break
    if film_every:
        film.append(environment.observe().images)
    frames = {name: np.stack([images[name] for images in film]) for name in film[0]} if film else {}
    return Rollout(environment.name, seed, success, np.stack(actions), frames)
