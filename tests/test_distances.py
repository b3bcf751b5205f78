"""Nearest distances against the plain way, by hand, and by the clock."""

import time

import numpy as np
import pytest

from xwam.scene.distances import Distances, distances


def plain(a_m: np.ndarray, b_m: np.ndarray) -> Distances:
    """Every pair."""
    pairs = np.linalg.norm(a_m[:, None] - b_m[None], axis=-1)
    return Distances(pairs.min(axis=1), pairs.min(axis=0))


@pytest.mark.parametrize("processors", [1, 2])
def test_it_is_what_all_pairs_give(processors):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(300, 3)), random.normal(size=(200, 3)) + [0.3, 0, 0]
    found, expected = distances(a, b, processors), plain(a, b)
    np.testing.assert_allclose(found.a_to_b_m, expected.a_to_b_m)
    np.testing.assert_allclose(found.b_to_a_m, expected.b_to_a_m)


def test_chamfer_and_f_score_by_hand():
    a = np.array([[0.0, 0, 0], [1, 0, 0]])
    found = distances(a, np.array([[0.0, 0, 0.005]]))
    assert found.chamfer_m == pytest.approx(((0.005 + np.hypot(1, 0.005)) / 2 + 0.005) / 2)
    assert found.f_score(0.01) == pytest.approx(2 * 0.5 * 1 / 1.5)  # half of a is near, all of b is found
    assert found.f_score(0.001) == 0 and found.f_score(2) == 1


def test_an_empty_cloud_has_no_distance_and_a_hole_of_nan_is_refused():
    a = np.zeros((3, 3))
    assert distances(a, a[:0]) is None and distances(a[:0], a) is None
    a[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 3 points of the second cloud are not finite"):
        distances(np.zeros((2, 3)), a)


def test_two_clouds_of_100_000_points_take_less_than_two_seconds():
    random = np.random.default_rng(0)
    flat = random.uniform(0, 1, (2, 100_000, 2))
    waves = 0.1 * np.sin(6 * flat[..., :1]) + random.normal(0, 0.003, (2, 100_000, 1))
    a, b = np.concatenate([flat, waves], axis=-1)
    began = time.process_time()  # of both processors together: other work on the machine does not count
    found = distances(a, b, processors=2)
    assert time.process_time() - began < 2
    assert found.f_score(0.01) > 0.99
