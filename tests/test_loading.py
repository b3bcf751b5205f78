"""Batches made ahead: in order, and the same whoever makes them."""

import os

import pytest
import torch

from test_trainer import Toy, ToyBatches, settings
from xwam.core.streams import Batch, Streams
from xwam.train.loading import loaders_for, prefetched
from xwam.train.trainer import Trainer


def test_batches_come_in_order_and_one_ahead():
    asked = []

    def load(step):
        asked.append(step)
        return step

    stream = prefetched(load, range(3, 7))
    assert next(stream) == 3
    assert list(stream) == [4, 5, 6]
    assert asked == [3, 4, 5, 6]
    assert list(prefetched(load, range(2, 2))) == list(prefetched(load, range(2, 2), loaders=2)) == []


def batch_of(step: int) -> Batch:
    """A batch that tells its step and who made it."""
    x = torch.full((2, 1, 1, 1, 2, 2), float(step))
    streams = Streams(x, x[:, 0, 0, 0], x[:, 0, 0, 0], x if step % 2 else None)
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    return Batch(streams, valid, valid, valid[:, None, None], (f"step {step}", str(os.getpid())))


def test_processes_make_the_batches_that_a_thread_makes():
    plain, ahead = (list(prefetched(batch_of, range(3, 8), loaders)) for loaders in (0, 2))
    for one, other in zip(plain, ahead, strict=True):
        assert one.instructions[0] == other.instructions[0] and torch.equal(one.streams.video, other.streams.video)
        assert (one.streams.depth is None) == (other.streams.depth is None)
        assert torch.equal(one.depth_valid, other.depth_valid)
    makers = {batch.instructions[1] for batch in ahead}
    assert len(makers) == 2 and str(os.getpid()) not in makers


def test_a_run_is_the_same_whoever_makes_its_batches(tmp_path):
    for loaders in (0, 2):
        assert Trainer(Toy(), ToyBatches(), settings(loaders=loaders), tmp_path / str(loaders)).fit()
    files = [tmp_path / str(loaders) / "checkpoints/step_00000004/model.safetensors" for loaders in (0, 2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_error_in_a_process_is_told():
    def load(step):
        raise ValueError(f"clip {step} is damaged")

    with pytest.raises(ValueError, match="clip 3 is damaged"):
        list(prefetched(load, range(3, 5), loaders=1))


def test_a_gpu_gets_processes_and_a_cpu_a_thread(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    assert loaders_for(torch.device("cpu")) == 0
    assert loaders_for(torch.device("cuda")) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert loaders_for(torch.device("cuda")) == 1
