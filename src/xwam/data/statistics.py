"""Minimum, maximum, mean, deviation and quantiles: of a dataset for its readers, of a robot for normalisation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.embodiment import Embodiment
from xwam.data.episodes import EpisodeStore

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Summary = dict[str, list]


def summarise(rows: Float[np.ndarray, "N D"]) -> Summary:
    """Statistics of each column."""
    rows = np.asarray(rows, dtype=np.float64)
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    found |= dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True))
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(rows)]}


def summarise_images(images: UInt8[np.ndarray, "T H W *C"] | Float[np.ndarray, "T H W"]) -> Summary:
    """Statistics of each channel from some pixels of some frames, shaped (C, 1, 1); RGB in 0 .. 1, depth in metres."""
    every = max(1, len(images) // 8)
    some = images[::every, ::4, ::4]
    rows = some.reshape(-1, 3) / 255.0 if some.ndim == 4 else some.reshape(-1, 1)
    summary = summarise(rows)
    return {name: summary[name] if name == "count" else [[[x]] for x in summary[name]] for name in summary}


def merge(summaries: Sequence[Summary]) -> Summary:
    """Statistics of several recordings together; quantiles are the weighted mean of theirs, hence approximate."""
    parts = {name: np.array([summary[name] for summary in summaries]) for name in summaries[0]}
    count = parts["count"].reshape(-1, *[1] * (parts["mean"].ndim - 1))
    share = count / count.sum()
    mean = (share * parts["mean"]).sum(0)
    variance = (share * (parts["std"] ** 2 + (parts["mean"] - mean) ** 2)).sum(0)
    merged = {"min": parts["min"].min(0), "max": parts["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
    merged |= {name: (share * parts[name]).sum(0) for name in QUANTILES}
    return {name: value.tolist() for name, value in merged.items()} | {"count": [int(count.sum())]}


def fit_embodiment(store: EpisodeStore, embodiment: Embodiment, episodes: Sequence[int]) -> Embodiment:
    """The robot with the 1% and 99% quantiles of its proprio and actions in these episodes."""
    if len(episodes) == 0:
        raise ValueError("statistics of no episodes: give at least one, such as the training part of `split`")
    proprio, actions = zip(*(store.vectors(episode) for episode in episodes), strict=True)
    fitted = {}
    for name, vector, rows in (("proprio", embodiment.proprio, proprio), ("action", embodiment.action, actions)):
        rows = np.concatenate(rows)
        if rows.shape[1] != vector.size:
            raise ValueError(
                f"{name} has {rows.shape[1]} entries in {store.root}, {vector.size} in embodiment {embodiment.name!r}: "
                "use the embodiment that the dataset was recorded with"
            )
        low, high = np.quantile(rows, [0.01, 0.99], axis=0)
        fitted[name] = vector.fit(low, high)
    return embodiment.model_copy(update=fitted)
