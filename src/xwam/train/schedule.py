"""What depends on the step alone: the learning rate and the seeds."""

import math
from typing import Literal

import numpy as np

PURPOSES = ("training", "validation", "examination")


def learning_rate_at(
    step: int,
    *,
    schedule: Literal["cosine", "constant"] = "cosine",
    peak: float,
    steps: int,
    warmup_steps: int,
    final_ratio: float,
    decay_share: float = 0.2,
) -> float:
    """Learning rate of update `step` (from 0): linear to `peak` at the end of the warm-up, then by the schedule.

    A cosine falls from there on; a constant rate falls in a straight line over the last `decay_share` of all steps
    (warmup-stable-decay, arXiv 2404.06395). The last update, `steps` - 1, runs at `peak` * `final_ratio`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "cosine":
        progress = (step + 1 - warmup_steps) / (steps - warmup_steps)
        height = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        falling = max(1, min(round(decay_share * steps), steps - warmup_steps))
        height = min(1.0, (steps - 1 - step) / falling)
    return peak * (final_ratio + (1 - final_ratio) * height)


def seeds_at(
    seed: int, purpose: Literal["training", "validation", "examination"], index: int, places: range
) -> list[int]:
    """Seeds in [0, 2^63), which fit torch and NumPy, of samples at `places` in a batch.

    The batch is that of training step `index`, or batch `index` of validation or of what is examined beside it, as a
    whole: whichever rank has the sample.
    """
    sequence = np.random.SeedSequence([seed, PURPOSES.index(purpose), index])
    state = sequence.generate_state(places.stop, np.uint64) >> 1
    return state[places.start : places.stop].tolist()
