"""Demonstrations of scripted experts, as episodes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xwam.data.episodes import Episode
from xwam.sim.env import Environment

# Evaluation draws its seeds from here on, so that no recorded episode can share one.
FIRST_EVALUATION_SEED = 1_000_000
# Noise on the executed action shows the expert how to recover; the stored action is always the expert's own.
EXECUTION_NOISES = (0.0, 0.3, 0.6)
STEPS_AFTER_SUCCESS = 16
MAX_DEMONSTRATION_STEPS = 200


@dataclass
class _Moments:
    """What an episode collects, a list per quantity and camera."""

    observations: list
    actions: list


def demonstrate(environment: Environment, seed: int) -> Episode | None:
    """One episode of the environment's expert, or None if it failed.

    `seed` decides on the initial state, the noise on the executed actions and its strength.
    """
    random = np.random.default_rng([seed, 1])
    noise = EXECUTION_NOISES[seed % len(EXECUTION_NOISES)]
    environment.reset(seed)
    moments, left = _Moments([], []), None
    for _ in range(MAX_DEMONSTRATION_STEPS):
        action = environment.expert_action()
        moments.observations.append(environment.observe(depth=True))
        moments.actions.append(action)
        solved = environment.step(action + noise * random.standard_normal(action.shape))
        if left is None and solved:
            left = STEPS_AFTER_SUCCESS
        elif left is not None:
            left -= 1
            if left == 0:
                return _episode(environment, seed, moments)
    return None


def demonstrations(environment: Environment, first_seed: int, count: int) -> Iterator[Episode]:
    """`count` successful demonstrations with consecutive seeds, skipping those that the expert fails."""
    seed = first_seed
    while count:
        episode = demonstrate(environment, seed)
        if episode is not None:
            count -= 1
            yield episode
        seed += 1
        if seed - first_seed > 10 * (count + 10):
            raise RuntimeError(f"the expert of {environment.name} fails nearly always: seeds {first_seed} to {seed}")


def _episode(environment: Environment, seed: int, moments: _Moments) -> Episode:
    def stacked(field: str) -> dict[str, np.ndarray]:
        columns = [getattr(observation, field) for observation in moments.observations]
        return {name: np.stack([column[name] for column in columns]) for name in columns[0]}

    return Episode(
        rgb=stacked("images"),
        depth_m=stacked("depths_m"),
        intrinsics=stacked("intrinsics"),
        T_base_cam=stacked("T_base_cam"),
        proprio=np.stack([observation.proprio for observation in moments.observations]),
        actions=np.stack(moments.actions),
        instructions=environment.instructions,
        environment=environment.name,
        seed=seed,
        success=True,
    )
