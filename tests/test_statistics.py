"""Statistics of recordings, of a robot, and of parts merged into a whole."""

import json

import numpy as np
import pytest

from recordings import record, robot, smooth_episode
from xwam.data.statistics import fit_embodiment, merge, summarise


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return record(tmp_path_factory.mktemp("statistics"), [[smooth_episode(30, seed=k) for k in range(3)]])


def test_a_robot_is_fitted_to_the_chosen_episodes(store):
    fitted = fit_embodiment(store, robot(), [0, 2])
    proprio, actions = (np.concatenate(x) for x in zip(store.vectors(0), store.vectors(2), strict=True))
    np.testing.assert_allclose(fitted.proprio.q01, np.quantile(proprio, 0.01, axis=0), rtol=1e-6)
    limit = np.abs(np.quantile(actions[:, :3], [0.01, 0.99], axis=0)).max(axis=0)
    np.testing.assert_allclose(fitted.action.q99[:3], limit, rtol=1e-6)
    np.testing.assert_allclose(fitted.action.q01[:3], -limit, rtol=1e-6)
    assert not fitted.action.normalise(np.zeros((1, 4)))[0, :3].any()
    assert robot().proprio.q01 == () and fitted != fit_embodiment(store, robot(), [0])


def test_bad_requests_are_refused(store):
    with pytest.raises(ValueError, match="no episodes"):
        fit_embodiment(store, robot(), [])
    fewer = robot().proprio.model_copy(update={"parts": robot().proprio.parts[:1]})
    with pytest.raises(ValueError, match="proprio has 4 entries"):
        fit_embodiment(store, robot().model_copy(update={"proprio": fewer}), [0])


def test_merged_moments_are_those_of_the_whole():
    parts = [np.random.default_rng(k).normal(k, 1 + k, size=(50 * (k + 1), 2)) for k in range(3)]
    merged, whole = merge([summarise(part) for part in parts]), summarise(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name])


def test_the_dataset_tells_its_statistics(store):
    stats = json.loads((store.root / "meta/stats.json").read_text())
    actions = np.concatenate([store.vectors(k)[1] for k in range(3)])
    np.testing.assert_allclose(stats["action"]["q90"], np.quantile(actions, 0.9, axis=0), rtol=1e-6)
    assert stats["action"]["count"] == [90]
    depth = stats["observation.images.front_depth"]
    assert 0.3 <= depth["min"][0][0][0] < depth["mean"][0][0][0] < depth["max"][0][0][0] <= 2.0
    rgb = stats["observation.images.front"]
    assert 0 <= np.min(rgb["min"]) < np.max(rgb["max"]) <= 1
