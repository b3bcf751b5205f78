"""Demonstrations of scripted experts, as episodes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from xwam.core.files import read_json, write_json
from xwam.data.episodes import Episode, EpisodeStore
from xwam.data.finalise import finalise
from xwam.data.layout import DatasetSpec
from xwam.data.processes import progress_bar, run_all
from xwam.data.writer import ShardWriter, describe_robot, published
from xwam.sim.env import Environment, make_environment

# Evaluation draws its seeds from here on, so that no recorded episode can share one.
FIRST_EVALUATION_SEED = 1_000_000
# Noise on the executed action shows the expert how to recover; the stored action is always the expert's own.
EXECUTION_NOISES = (0.0, 0.3, 0.6)
STEPS_AFTER_SUCCESS = 16
MAX_DEMONSTRATION_STEPS = 200
SEEDS_PER_SHARD = 10
MOST_ENVIRONMENTS = 100
PLAN = "recording.json"


@dataclass
class _Moments:
    """What an episode collects, a list per quantity and camera."""

    observations: list
    actions: list


def demonstrate(environment: Environment, seed: int, noise: float) -> Episode | None:
    """One episode of the environment's expert, or None if it failed.

    `seed` decides on the initial state and on the noise, of this standard deviation, on the executed actions.
    """
    random = np.random.default_rng([seed, 1])
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


@dataclass(frozen=True)
class Shard:
    """A piece of a recording that one process does alone: some consecutive seeds of an environment."""

    index: int
    environment: str
    seeds: range


def shards_of(plan: Mapping[str, int]) -> list[Shard]:
    """The shards of so many seeds of each environment, in turns.

    A recording that is stopped early so holds all environments. A shard's index tells its environment's place in the
    plan and its seeds, so a plan that grows at its end, or in its numbers, keeps the shards that it had.
    """
    shards = []
    for place, (name, episodes) in enumerate(plan.items()):
        if not 0 < episodes <= FIRST_EVALUATION_SEED or place >= MOST_ENVIRONMENTS:
            raise ValueError(f"{episodes} episodes of {name}: record 1 to {FIRST_EVALUATION_SEED} of up to 100 tasks")
        for block, first in enumerate(range(0, episodes, SEEDS_PER_SHARD)):
            seeds = range(first, min(first + SEEDS_PER_SHARD, episodes))
            shards.append(Shard(block * MOST_ENVIRONMENTS + place, name, seeds))
    return sorted(shards, key=lambda shard: shard.index)


def extended_plan(root: Path, environments: Sequence[str], episodes: int, height: int, width: int) -> dict[str, int]:
    """What `root` was asked to hold so far and now; kept in it, so that shards mean the same next time."""
    path = root / PLAN
    size = [height, width]
    known = read_json(path) if path.exists() else {"size": size, "episodes": {}}
    if known["size"] != size:
        raise ValueError(f"{root} holds images of {known['size']}, not {size}: record into another folder")
    plan = dict(known["episodes"])
    for name in environments:
        before = plan.get(name, 0)
        if episodes > before and before % SEEDS_PER_SHARD:
            raise ValueError(
                f"{root} was asked for {before} episodes of {name}, which end within a shard of {SEEDS_PER_SHARD}: "
                "only multiples of it can be extended; record into another folder"
            )
        plan[name] = max(before, episodes)
    shards_of(plan)
    write_json(path, {"size": size, "episodes": plan})
    return plan


@dataclass(frozen=True)
class Recorded:
    """A finished shard and how many of its seeds the expert solved."""

    shard: Shard
    kept: int


def record_dataset(
    root: Path, environments: Sequence[str], episodes: int, height: int, width: int, workers: int
) -> int:
    """Records `episodes` seeds of every environment into `root`, or what is missing of them; returns those kept."""
    shards, kept = shards_of(extended_plan(root, environments, episodes, height, width)), 0
    with progress_bar() as progress:
        task = progress.add_task("Recording", total=sum(len(shard.seeds) for shard in shards))
        progress.advance(task, sum(len(shard.seeds) for shard in shards if shard.index in published(root)))
        for recorded in record(root, shards, height, width, workers):
            kept += recorded.kept
            progress.advance(task, len(recorded.shard.seeds))
    finalise(root)
    print(f"{root} holds {len(EpisodeStore(root))} episodes, {kept} of them new")
    return kept


def record(root: Path, shards: Sequence[Shard], height: int, width: int, workers: int) -> Iterator[Recorded]:
    """Records the shards that `root` lacks, several at a time, and yields each when it is done."""
    known = set(published(root))
    missing = [shard for shard in shards if shard.index not in known]
    yield from run_all(record_shard, [(root, shard, height, width) for shard in missing], workers)


def record_shard(root: Path, shard: Shard, height: int, width: int) -> Recorded:
    """Records the demonstrations of a shard's seeds; those that the expert fails are left out.

    If it fails all of them there is no shard, and the next recording tries again.
    """
    environment = make_environment(shard.environment, height, width)
    try:
        episodes = _solved(environment, shard.seeds)
        first = next(episodes, None)
        if first is None:
            return Recorded(shard, 0)
        kept = 0
        with ShardWriter(root, DatasetSpec.of(environment.embodiment, height, width), shard.index) as writer:
            for episode in chain([first], episodes):
                writer.add(episode)
                kept += 1
        describe_robot(root, environment.embodiment)
        return Recorded(shard, kept)
    finally:
        environment.close()


def _solved(environment: Environment, seeds: Iterable[int]) -> Iterator[Episode]:
    for seed in seeds:
        episode = demonstrate(environment, seed, EXECUTION_NOISES[seed % len(EXECUTION_NOISES)])
        if episode is not None:
            yield episode


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
