"""Means over seeds, how sure they are, and what a difference between two rows says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t

Values = Mapping[int, float]  # by seed
Verdict = Literal["better", "worse", "unclear"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over trainings of different seeds and its 95% interval by Student's t, infinite for one seed."""

    mean: float
    half_width: float
    seeds: int

    @classmethod
    def of(cls, values: Values) -> "SeedEstimate | None":
        """None if a seed has no value."""
        known = np.array(list(values.values()), dtype=float)
        if not known.size or np.isnan(known).any():
            return None
        n = known.size
        if n == 1:
            return cls(float(known[0]), math.inf, 1)
        half = t.ppf((1 + CONFIDENCE) / 2, n - 1) * known.std(ddof=1) / math.sqrt(n)
        return cls(float(known.mean()), float(half), n)

    @property
    def interval(self) -> tuple[float, float]:
        return self.mean - self.half_width, self.mean + self.half_width


def difference(values: Values, against: Values) -> SeedEstimate | None:
    """Of two rows, seed by seed: what a seed does to both, such as the order of the data, falls out."""
    return SeedEstimate.of({seed: values[seed] - against[seed] for seed in values if seed in against})


def verdict(estimate: SeedEstimate, higher_is_better: bool) -> Verdict:
    """Unclear where the interval of a difference holds 0: seeds alone explain it."""
    low, high = estimate.interval
    if low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) == higher_is_better else "worse"
