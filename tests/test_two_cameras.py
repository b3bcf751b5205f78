"""Clouds from true RGB-D of two of a simulator's cameras agree in the base frame; docs/results tells of ten tasks."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import two_cameras


@pytest.mark.slow
def test_two_cameras_agree_within_the_spacing_of_pixels():
    found = two_cameras.measured("metaworld/push-v3")
    assert len(found) == 6  # fixed and wrist cameras, every ordered pair
    for pair, values in found.items():
        numbers = two_cameras.told(values)
        assert numbers["points"] > 1000, pair
        assert numbers["gap_median_mm"] < 0.1 and numbers["gap_95_mm"] < 3, pair
        assert numbers["nearest_95_spacings"] < 1 and numbers["within_a_spacing"] > 0.95, pair
