"""Seeds that follow from a seed."""

import numpy as np


def derived_seed(seed: int, number: int) -> int:
    """The seed of draw `number` of those that belong to `seed`; unrelated to it, and to those of other numbers."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
