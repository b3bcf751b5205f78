"""How often something succeeded, and how sure that is."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SuccessRate:
    """Closed-loop episodes of one task."""

    task: str
    successes: int
    episodes: int

    def __post_init__(self):
        if not 0 <= self.successes <= self.episodes or self.episodes == 0:
            raise ValueError(
                f"{self.task}: {self.successes} successes of {self.episodes} episodes: "
                "need 0 <= successes <= episodes, episodes > 0"
            )

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the rate (Wilson 1927); sound for few episodes and for rates of 0 and 1."""
        z, n = 1.959964, self.episodes
        centre = (self.rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(self.rate * (1 - self.rate) / n + z * z / (4 * n * n))
        return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def pooled(rates: list[SuccessRate], name: str) -> SuccessRate:
    """All episodes together."""
    return SuccessRate(name, sum(rate.successes for rate in rates), sum(rate.episodes for rate in rates))
