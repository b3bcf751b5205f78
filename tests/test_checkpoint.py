"""A run's folder: whole checkpoints or none, and errors that say what is wrong."""

import errno
import json
import resource
import signal

import pytest
import torch
from torch import nn

from xwam.train import checkpoint
from xwam.train.optimizers import AdamW
from xwam.train.pieces import read_into


def test_saved_weights_come_back_in_another_memory_layout(tmp_path):
    model, twin = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Conv2d(3, 4, 3)
    saved = checkpoint.save(tmp_path, 7, {"model": model.state_dict()})
    checkpoint.load_weights(twin, saved / "model.safetensors")
    assert torch.equal(model.weight, twin.weight) and torch.equal(model.bias, twin.bias)
    assert checkpoint.read_state(saved) == {"step": 7, "log_bytes": 0}


def test_the_newest_two_are_kept(tmp_path):
    for step in (2, 4, 100_000_000):
        checkpoint.save(tmp_path, step, {"model": {"x": torch.ones(1)}})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_00000004", "step_100000000"]
    assert checkpoint.latest(tmp_path).name == "step_100000000"


def test_no_checkpoint_yet(tmp_path):
    assert checkpoint.latest(tmp_path) is None


def test_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    older = checkpoint.save(tmp_path, 1, {"model": {"x": torch.ones(1)}})
    whole = checkpoint.write

    def full(path, pieces):
        if path.stem == "ema":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, pieces)

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(OSError, match=r"step 2 .*No space left.*step_00000001 is intact.*make room"):
        checkpoint.save(tmp_path, 2, {"model": {"x": torch.ones(1)}, "ema": {"x": torch.ones(1)}})
    assert list((tmp_path / "checkpoints").iterdir()) == [older]


def test_writer_that_runs_out_of_room_by_itself(tmp_path):
    """A limit on the size of files makes the tensor writer itself fail, as a full disk does."""
    older = checkpoint.save(tmp_path, 1, {"model": {"x": torch.ones(1)}})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError, match="could not save step 2"):
            checkpoint.save(tmp_path, 2, {"model": {"x": torch.ones(1 << 16)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list((tmp_path / "checkpoints").iterdir()) == [older]


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(tmp_path):
    older = checkpoint.save(tmp_path, 1, {"model": {"x": torch.ones(1)}})
    (tmp_path / "checkpoints" / "step_00000002.part").mkdir()
    assert checkpoint.latest(tmp_path) == older
    newer = checkpoint.save(tmp_path, 3, {"model": {"x": torch.ones(1)}})
    assert sorted((tmp_path / "checkpoints").iterdir()) == [older, newer]


def test_faults_are_named(tmp_path):
    saved = checkpoint.save(tmp_path, 1, {"model": {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}})
    path = saved / "model.safetensors"
    with pytest.raises(ValueError) as caught:
        read_into(path, {"a": torch.ones(2), "b": torch.ones(4), "d": torch.ones(1)})
    message = str(caught.value)
    assert "1 missing from the file: d" in message
    assert "1 unknown to the model: c" in message
    assert "1 of another shape: b ((3,) in the file, (4,) in the model)" in message
    assert "checkpoint of another model" in message


def test_many_faults_stay_short(tmp_path):
    saved = checkpoint.save(tmp_path, 1, {"model": {"a": torch.ones(2)}})
    with pytest.raises(ValueError, match=r"20 missing from the file: n0, n1, n2, n3, n4, \.\.\."):
        expected = {"a": torch.ones(2)} | {f"n{i}": torch.ones(1) for i in range(20)}
        read_into(saved / "model.safetensors", expected)


def test_damaged_and_absent_files(tmp_path):
    saved = checkpoint.save(tmp_path, 1, {"model": {"x": torch.ones(100)}})
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged .*one before"):
        read_into(path, {"x": torch.ones(100)})
    with pytest.raises(ValueError, match="no file"):
        read_into(saved / "ema.safetensors", {})


def test_optimizer_state_comes_back_by_name(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    optimizer = AdamW(model.parameters())
    model[0](torch.ones(1, 2)).sum().backward()  # the second layer never has a gradient
    optimizer.step()
    saved = checkpoint.save(tmp_path, 1, {"optimizer": checkpoint.optimizer_tensors(model, optimizer)})
    twin = AdamW(reversed(list(model.parameters())))  # another order of parameters
    checkpoint.load_optimizer(model, twin, saved / "optimizer.safetensors")
    for parameter in model.parameters():
        there, back = optimizer.state.get(parameter, {}), twin.state.get(parameter, {})
        assert there.keys() == back.keys()
        assert all(torch.equal(there[key], back[key]) for key in there)


def test_optimizer_of_another_model(tmp_path):
    model, other = nn.Linear(2, 3), nn.Linear(2, 4)
    for each in (model, other):
        each(torch.ones(1, 2)).sum().backward()
    optimizer = AdamW(model.parameters())
    optimizer.step()
    saved = checkpoint.save(tmp_path, 1, {"optimizer": checkpoint.optimizer_tensors(model, optimizer)})
    with pytest.raises(ValueError, match=r"another shape: weight.exp_avg .*\(3, 2\) in the file, \(4, 2\)"):
        checkpoint.load_optimizer(other, AdamW(other.parameters()), saved / "optimizer.safetensors")


def test_a_run_is_resumed_under_its_own_configuration_only(tmp_path):
    config = {"train": {"steps": 4, "betas": (0.9, 0.99)}, "seed": 0}
    checkpoint.open_run(tmp_path, {"width": 2})  # and ends before its first step, which binds nobody
    checkpoint.open_run(tmp_path, config)
    (tmp_path / "log.jsonl").touch()
    checkpoint.open_run(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["betas"] == [0.9, 0.99]
    with pytest.raises(ValueError) as caught:
        checkpoint.open_run(tmp_path, {"train": {"steps": 8, "betas": (0.9, 0.99)}, "width": 3})
    message = str(caught.value)
    assert "train.steps: 4 in the run, 8 now" in message
    assert "seed: 0 in the run, 'absent' now" in message
    assert "width: 'absent' in the run, 3 now" in message
    assert "betas" not in message and "another folder" in message
