"""Acting on the best of several imagined futures: the one in which the cameras agree best on where things are.

A sample in which views contradict each other shows a world that cannot be, so its actions may not fit this one either.
Whether they do not is a question to measure; nothing is known of the truth while acting.
"""

from collections.abc import Sequence

import numpy as np

from xwam.core.seeds import derived_seed
from xwam.core.types import ActionChunk, Dream, Observation
from xwam.scene.consistency import CAP_M, cross_view_m
from xwam.wam import WorldActionModel


class BestOf:
    """`WorldActionModel.act`, but of `candidates` dreams of each observation the most consistent one's actions.

    Slow: each candidate is denoised and decoded as a whole, in colour and depth. The first candidate has the request's
    own seed, so that one candidate acts as the model alone does. Observations need the cameras' calibration.
    """

    def __init__(self, model: WorldActionModel, candidates: int):
        if candidates < 1:
            raise ValueError(f"{candidates} candidates to choose from: give 1 or more")
        if not model.config.transformer.has_depth or len(model.embodiment.cameras) < 2:
            raise ValueError("the consistency of views needs a model with depth and two cameras or more")
        self._model, self._candidates = model, candidates

    def __call__(self, observations: Sequence[Observation], seeds: Sequence[int]) -> list[ActionChunk]:
        return [self._best(*request).chunk for request in zip(observations, seeds, strict=True)]

    def _best(self, observation: Observation, seed: int) -> Dream:
        dreams = [self._model.imagine(observation, own) for own in seeds_of(seed, self._candidates)]
        return min(dreams, key=inconsistency_m)


def seeds_of(seed: int, candidates: int) -> list[int]:
    """The request's own seed, and others that follow from it."""
    return [seed, *(derived_seed(seed, k) for k in range(1, candidates))]


def inconsistency_m(dream: Dream) -> float:
    """Mean over the imagined frames of `cross_view_m`; the worst there is in frames where no two views see the same."""
    frames = range(1, dream.scene.rgb.shape[1])
    found = np.array([cross_view_m(dream.scene, frame) for frame in frames])
    return float(np.where(np.isnan(found), CAP_M, found).mean())
