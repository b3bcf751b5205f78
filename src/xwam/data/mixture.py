"""Several datasets trained on together, each by its weight: other robots, other cameras, other rates.

A rank's batch is of one dataset, so nothing has to be padded to the most cameras of all, and every batch has one robot
behind its numbers. Which dataset a batch is of, and how many batches it gave before, is a function of the position.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Int

from xwam.core.streams import Batch
from xwam.data.clips import ClipId
from xwam.data.sampling import permuted

# Within so many batches every dataset has its exact share; a weight is thus met to a 4096th.
BLOCK = 4096


class Batches(Protocol):
    """Batches of one dataset, as `ClipBatches` for a single rank."""

    def train(self, step: int) -> Batch: ...

    def ids(self, step: int) -> list[ClipId]: ...

    def validation(self) -> Iterator[Batch]: ...


class Mixture:
    """Batches drawn from several by weight; each shows its own in its own order, epoch after epoch, none left out.

    With `ranks`, each takes every `ranks`-th batch, so no two share one; `parts` give a single rank's batches.
    """

    def __init__(self, parts: Sequence[Batches], weights: Sequence[float], *, seed: int, rank: int = 0, ranks: int = 1):
        if len(parts) != len(weights) or not 0 < len(parts) <= BLOCK:
            raise ValueError(f"{len(parts)} datasets and {len(weights)} weights: give each of 1 to {BLOCK} one weight")
        if not all(0 < weight < float("inf") for weight in weights):
            raise ValueError(f"weights {list(weights)}: give positive numbers; leave out what is not to be drawn")
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} of {ranks}: ranks are 0 .. {ranks - 1}")
        self._parts, self._seed, self._rank, self._ranks = parts, seed, rank, ranks
        self._quotas = quotas(weights)

    def train(self, step: int) -> Batch:
        part, before = self.place(step * self._ranks + self._rank)
        return self._parts[part].train(before)

    def ids(self, step: int) -> list[ClipId]:
        """Which clips make the batches of a step, those of all ranks one after the other."""
        places = [self.place(step * self._ranks + rank) for rank in range(self._ranks)]
        return [clip for part, before in places for clip in self._parts[part].ids(before)]

    def validation(self) -> Iterator[Batch]:
        """Those of all datasets, one after the other."""
        for part in self._parts:
            yield from part.validation()

    def place(self, position: int) -> tuple[int, int]:
        """Which dataset the batch at this position of the whole training is of, and how many it gave before."""
        block, slot = divmod(position, BLOCK)
        parts = _block(self._quotas, self._seed, block)
        part = int(parts[slot])
        return part, block * self._quotas[part] + int(np.count_nonzero(parts[:slot] == part))


def quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """Batches of each dataset in a block, in proportion to the weights by largest remainder, but at least one each."""
    exact = np.array(weights, dtype=np.float64) / np.sum(weights) * BLOCK
    beyond_one = np.maximum(exact - 1, 0)
    if beyond_one.any():
        exact = 1 + beyond_one / beyond_one.sum() * (BLOCK - len(exact))
    counts = np.maximum(np.floor(exact), 1).astype(int)
    largest_remainder = np.argsort(counts - exact, kind="stable")
    counts[largest_remainder[: BLOCK - counts.sum()]] += 1
    return tuple(counts.tolist())


@lru_cache(maxsize=8)
def _block(counts: tuple[int, ...], seed: int, block: int) -> Int[np.ndarray, " slots"]:
    """The dataset of every batch of a block, shuffled."""
    ends = np.cumsum(counts)
    return np.searchsorted(ends, permuted(BLOCK, (seed, block), np.arange(BLOCK)), side="right")
