"""Robot, objects and background of recorded moments: the episode is played again, for recordings hold no such masks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from xwam.data.episodes import Episode
from xwam.sim.env import Environment


def layers_of(environment: Environment, episode: Episode, rows: Sequence[int]) -> UInt8[np.ndarray, "V T H W"]:
    """Layers of all cameras at these rows of an episode that was recorded in `environment` without noise.

    Raises ValueError if the robot is elsewhere the second time, as with executed actions that were not the stored ones.
    """
    environment.reset(episode.seed)
    found, last = {}, max(rows)
    for row in range(last + 1):
        if row in rows:
            found[row] = environment.layers()
        if row < last:
            # as when it was recorded: a sum with noise is of double precision
            environment.step(episode.actions[row].astype(np.float64))
    proprio = environment.observe().proprio
    if not np.allclose(proprio, episode.proprio[last], atol=1e-5):
        raise ValueError(
            f"seed {episode.seed} of {environment.name}: the robot is at {proprio}, recorded was "
            f"{episode.proprio[last]}: only undisturbed episodes can be played again"
        )
    return np.stack([[found[row][name] for row in rows] for name in environment.embodiment.camera_names])
