"""Success rates and their intervals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xwam.core.success import SuccessRate, pooled


@pytest.mark.parametrize(
    "successes, episodes, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1),
    ],
)
def test_published_values_of_the_interval(successes, episodes, low, high):
    assert SuccessRate("reach", successes, episodes).interval == pytest.approx((low, high), abs=2e-4)


@settings(deadline=None)
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_lies_in_0_1_holds_the_rate_and_mirrors(counts):
    successes, episodes = counts
    low, high = SuccessRate("reach", successes, episodes).interval
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= successes / episodes <= high + 1e-12
    assert SuccessRate("reach", episodes - successes, episodes).interval == pytest.approx(
        (1 - high, 1 - low), abs=1e-12
    )


def test_more_episodes_are_surer():
    widths = [high - low for low, high in (SuccessRate("reach", n // 2, n).interval for n in (4, 40, 400))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("successes, episodes", [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, episodes):
    with pytest.raises(ValueError, match=f"reach: {successes} successes of {episodes} episodes"):
        SuccessRate("reach", successes, episodes)


def test_pooling_counts_all_episodes():
    assert pooled([SuccessRate("a", 3, 4), SuccessRate("b", 1, 6)], "all") == SuccessRate("all", 4, 10)
