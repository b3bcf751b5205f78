"""Means over clips, and how sure they are: episodes are the samples, for frames and moments of one hang together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xwam.scene.score import ClipScores, nanmean


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` episodes with its bootstrap 95% interval."""

    mean: float
    low: float
    high: float
    count: int


def summarise(scores: Sequence[ClipScores], resamples: int = 10_000, seed: int = 0) -> dict[str, Estimate]:
    """Mean and percentile-bootstrap 95% interval (Efron 1979) of every number of `ClipScores.flat`.

    An episode's number is the mean over its clips; episodes are resampled. Clips that name no episode stand alone.
    """
    if not scores:
        raise ValueError("no scores to summarise: evaluate one clip or more")
    flats, episodes = [one.flat() for one in scores], _episodes(scores)
    return {name: _estimate([flat[name] for flat in flats], episodes, resamples, seed) for name in flats[0]}


def by_step(scores: Sequence[ClipScores], name: str, resamples: int = 2_000, seed: int = 0) -> list[Estimate]:
    """The same of one number at every frame from 1 on."""
    values, episodes = np.stack([one.steps[name] for one in scores]), _episodes(scores)
    return [_estimate(step, episodes, resamples, seed) for step in values.T]


def _episodes(scores: Sequence[ClipScores]) -> list[str]:
    return [one.episode or f"clip {k}" for k, one in enumerate(scores)]


def _estimate(values: Sequence[float], episodes: Sequence[str], resamples: int, seed: int) -> Estimate:
    of_episode: dict[str, list[float]] = {}
    for episode, value in zip(episodes, values, strict=True):
        of_episode.setdefault(episode, []).append(value)
    means = np.array([nanmean(np.array(own)) for own in of_episode.values()])
    return estimate(means[~np.isnan(means)], resamples, seed)


def estimate(known: Float[np.ndarray, " N"], resamples: int, seed: int) -> Estimate:
    """Of independent values; all NaN if there is none."""
    if not known.size:
        return Estimate(float("nan"), float("nan"), float("nan"), count=0)
    draws = np.random.default_rng(seed).integers(known.size, size=(resamples, known.size))
    low, high = np.quantile(known[draws].mean(axis=1), [0.025, 0.975])
    return Estimate(float(known.mean()), float(low), float(high), known.size)
