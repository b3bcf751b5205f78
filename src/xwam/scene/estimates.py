"""Means over clips, and how sure they are: episodes are the samples, for frames and moments of one hang together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xwam.scene.score import ClipScores, nanmean

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` episodes with its bootstrap 95% interval."""

    mean: float
    low: float
    high: float
    count: int


def summarise(scores: Sequence[ClipScores], seed: int = 0) -> dict[str, Estimate]:
    """Mean and percentile-bootstrap 95% interval (Efron 1979) of every number of `ClipScores.flat`.

    An episode's number is the mean over its clips; episodes are resampled. Clips that name no episode stand alone.
    """
    if not scores:
        raise ValueError("no scores to summarise: evaluate one clip or more")
    flats = [one.flat() for one in scores]
    values = np.array([[flat.get(name, np.nan) for name in flats[0]] for flat in flats])
    return dict(zip(flats[0], bootstrapped(_by_episode(values, scores), seed), strict=True))


def by_step(scores: Sequence[ClipScores], seed: int = 0) -> dict[str, list[Estimate]]:
    """The same of every number at every frame from 1 on."""
    steps = {}
    for name in scores[0].steps:
        values = np.stack([one.steps[name] for one in scores])
        steps[name] = bootstrapped(_by_episode(values, scores), seed)
    return steps


def _by_episode(values: Float[np.ndarray, "clips n"], scores: Sequence[ClipScores]) -> Float[np.ndarray, "episodes n"]:
    episodes = [one.episode or f"clip {k}" for k, one in enumerate(scores)]
    own = {episode: [k for k, other in enumerate(episodes) if other == episode] for episode in episodes}
    return np.stack([nanmean(values[clips]) for clips in own.values()])


def bootstrapped(values: Float[np.ndarray, "episodes n"], seed: int) -> list[Estimate]:
    """Of each column of independent rows, in which NaN is unknown; all NaN where nothing is known."""
    known = ~np.isnan(values)
    chances = np.full(len(values), 1 / len(values))
    times = np.random.default_rng(seed).multinomial(len(values), chances, size=RESAMPLES)  # each row is drawn so often
    with np.errstate(invalid="ignore"):  # a draw without anything known has no mean
        means = (times @ np.where(known, values, 0.0)) / (times @ known)
    estimates = []
    for mean, drawn, count in zip(nanmean(values), means.T, known.sum(axis=0), strict=True):
        low, high = np.quantile(drawn[~np.isnan(drawn)], [0.025, 0.975]) if count else (np.nan, np.nan)
        estimates.append(Estimate(float(mean), float(low), float(high), int(count)))
    return estimates
