"""What depends on the step alone: the learning rate and the seeds."""

import math
from typing import Literal

import numpy as np

PURPOSES = ("training", "validation")


def learning_rate_at(step: int, *, peak: float, steps: int, warmup_steps: int, final_ratio: float) -> float:
    """Learning rate of update `step` (from 0): linear to `peak` at the end of the warm-up, then a cosine.

    The last update, `steps` - 1, runs at `peak` * `final_ratio`.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step + 1 - warmup_steps) / (steps - warmup_steps)
    return peak * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def seed_at(seed: int, purpose: Literal["training", "validation"], index: int) -> int:
    """Seed in [0, 2^63) of training step `index` or of validation batch `index`; it fits torch and NumPy."""
    sequence = np.random.SeedSequence([seed, PURPOSES.index(purpose), index])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
