"""Of several dreams the one whose views agree best is acted on; one candidate is the model alone."""

import dataclasses

import numpy as np
import pytest

import raycast
from tiny_model import tiny_config, tiny_model, tiny_observation
from xwam.core.types import ActionChunk, Dream
from xwam.imagine.choosing import BestOf, inconsistency_m, seeds_of
from xwam.wam import WorldActionModel


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return tiny_model()


def dream(off_m: float) -> Dream:
    """One view's depth is off by so much."""
    clip = raycast.clip(size=32, frames=2)
    depth_m = clip.depth_m.copy()
    depth_m[0] -= off_m * (depth_m[0] > 0)
    return Dream(dataclasses.replace(clip, depth_m=depth_m), ActionChunk(np.full((2, 4), off_m), 0.1), np.zeros((2, 4)))


def test_one_candidate_acts_as_the_model_alone(model):
    seen = [tiny_observation(0), tiny_observation(1)]
    alone, best = model.act(seen, [5, 6]), BestOf(model, 1)(seen, [5, 6])
    for one, other in zip(alone, best, strict=True):
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-5)  # a batch of two rounds otherwise


def test_the_dream_is_taken_whose_views_agree_best(model, monkeypatch):
    offs = dict(zip(seeds_of(7, 3), (0.02, 0.0, 0.04), strict=True))
    monkeypatch.setattr(model, "imagine", lambda observation, seed: dream(offs[seed]))
    assert (BestOf(model, 3)([tiny_observation()], [7])[0].actions == 0).all()
    assert (BestOf(model, 1)([tiny_observation()], [7])[0].actions == 0.02).all()


def test_more_candidates_are_the_same_ones_and_others():
    assert seeds_of(7, 1) == [7] and seeds_of(7, 4)[:3] == seeds_of(7, 3)
    assert len({*seeds_of(7, 8), *seeds_of(8, 8)}) == 16


def test_seeing_nothing_together_is_as_bad_as_it_gets():
    clear, blind = dream(0.0), dream(0.0)
    blind = dataclasses.replace(blind, scene=dataclasses.replace(blind.scene, depth_m=0 * blind.scene.depth_m))
    assert inconsistency_m(clear) < 0.002 < inconsistency_m(dream(0.02)) < inconsistency_m(blind) == 0.05


def test_what_has_nothing_to_compare_is_refused(model):
    with pytest.raises(ValueError, match="0 candidates"):
        BestOf(model, 0)
    config = tiny_config()
    flat = config.model_copy(update={"transformer": config.transformer.model_copy(update={"depth_blocks": 0})})
    with pytest.raises(ValueError, match="needs a model with depth"):
        BestOf(WorldActionModel(flat), 2)
