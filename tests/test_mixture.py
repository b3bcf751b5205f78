"""Mixtures: shares are kept, every dataset is shown whole, and all of it is a function of the position."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recordings import record, robot, smooth_episode
from tiny_model import tiny_config
from xwam.core.embodiment import Part, VectorSpec
from xwam.data.batches import ClipBatches, PixelClips
from xwam.data.clips import ClipDataset, ClipIndex
from xwam.data.mixture import BLOCK, Mixture, quotas
from xwam.data.statistics import fit_embodiment
from xwam.data.transforms import ClipTransform
from xwam.wam import WorldActionModel


class Numbered:
    """A dataset whose batches are its name and the step."""

    def __init__(self, name: str):
        self.name = name

    def train(self, step: int) -> tuple[str, int]:
        return self.name, step

    def ids(self, step: int) -> list[tuple[str, int]]:
        return [(self.name, step)]

    def validation(self):
        yield self.name


def mixture(weights, **options) -> Mixture:
    return Mixture([Numbered(str(k)) for k in range(len(weights))], weights, seed=5, **options)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_quotas_follow_the_weights_and_leave_nobody_out(weights):
    counts = quotas(weights)
    assert sum(counts) == BLOCK and min(counts) >= 1
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - max(1, weight / sum(weights) * BLOCK)) <= 1 + len(weights)


def test_each_dataset_is_shown_in_its_own_order_without_a_gap():
    shown = [mixture([3.0, 1.0, 0.5]).train(step) for step in range(2 * BLOCK + 100)]
    for name in "012":
        steps = [step for dataset, step in shown if dataset == name]
        assert steps == list(range(len(steps)))
    counts = Counter(dataset for dataset, _ in shown[:BLOCK])
    assert counts["0"] / BLOCK == pytest.approx(3 / 4.5, abs=1e-3)
    first = Counter(dataset for dataset, _ in shown[:400])
    assert first["0"] / 400 == pytest.approx(3 / 4.5, abs=0.08)  # shuffled, not one dataset after the other


def test_ranks_share_the_batches_of_one_and_any_step_can_be_the_first():
    alone = mixture([2.0, 1.0])
    together = [mixture([2.0, 1.0], rank=rank, ranks=3) for rank in range(3)]
    for step in (0, 7, BLOCK // 3, 5000):
        batches = [one.train(step) for one in together]
        assert batches == [alone.train(3 * step + rank) for rank in range(3)]
        assert all(one.ids(step) == batches for one in together), "each rank can name what all of them see"


def test_validation_is_that_of_all():
    assert list(mixture([1.0, 5.0]).validation()) == ["0", "1"]


@pytest.mark.parametrize(
    ("weights", "options", "told"),
    [
        ([1.0, 0.0], {}, "positive numbers"),
        ([1.0, float("nan")], {}, "positive numbers"),
        ([], {}, "0 datasets"),
        ([1.0], {"rank": 2, "ranks": 2}, "rank 2 of 2"),
    ],
)
def test_wrong_weights_and_ranks_are_named(weights, options, told):
    with pytest.raises(ValueError, match=told):
        mixture(weights, **options)


def test_one_network_learns_from_robots_of_other_views_parts_and_rates(tmp_path):
    joints = Part(name="joints", kind="joint", size=4, unit="rad", columns=robot().proprio.column_names)
    other = robot().model_copy(
        update={
            "cameras": robot().cameras[:1],
            "proprio": VectorSpec(parts=(joints,), width=4),
            "action": VectorSpec(parts=robot().action.parts[:1], width=4),
            "action_period_s": 0.1,
        }
    )
    narrow = robot().model_copy(
        update={
            "proprio": VectorSpec(parts=robot().proprio.parts, width=4),
            "action": VectorSpec(parts=robot().action.parts, width=4),
        }
    )
    model = WorldActionModel(tiny_config())
    transform = ClipTransform(size=(32, 32))
    parts = []
    for name, one in (("a", narrow), ("b", other)):
        store = record(tmp_path / name, [[smooth_episode(24, seed=len(parts))]])
        fitted = fit_embodiment(store, one, [0])
        dataset = ClipDataset(store, ClipIndex(store, fitted, 9), fitted, transform)

        def encode(video: Tensor) -> Tensor:
            with torch.no_grad():
                return model.encode(video)

        clips = PixelClips(dataset, fitted, encode)
        parts.append(ClipBatches(clips, clips, batch_size=2, seed=len(parts), validation_batches=1))
    mixed = Mixture(parts, [1.0, 1.0], seed=0)
    views = set()
    for step in range(4):
        batch = mixed.train(step)
        views.add(batch.streams.video.shape[3])
        model.loss(batch, range(2))["total"].backward()
    assert views == {1, 2}
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.transformer.parameters())
