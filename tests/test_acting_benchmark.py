"""The measuring of requests itself, at a tiny size."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import acting as benchmark

from tiny_model import tiny_config


@pytest.fixture(scope="module")
def config():
    return tiny_config()


def test_requests_are_measured_at_any_size(config):
    network = benchmark.materialised(config.transformer, "cpu").eval()
    measured = benchmark.measure(config, network, "cpu", batch=2, rounds=2, rate=1e9)
    assert {name: measured[name]["steps"] for name in ("act 3", "act 6", "imagine")} == {
        "act 3": 3,
        "act 6": 6,
        "imagine": 6,
    }
    assert measured["act 6"]["ms"]["median"] > measured["call"]["ms"]["median"] > 0
    assert measured["call"]["tflop"] >= 0 and measured["call"]["utilisation"] > 0
    assert benchmark.encoding(config, "cpu", batch=2, rounds=1)["ms"]["median"] > 0


def test_what_is_asked_for_comes_out(config):
    requests = benchmark.Requests(config, benchmark.materialised(config.transformer, "cpu").eval(), "cpu", 2)
    acted, imagined = (requests.request(benchmark.schedules(config)[name])() for name in ("act 3", "imagine"))
    assert acted.depth is None and imagined.depth.shape == imagined.video.shape
    assert acted.action.isfinite().all()
