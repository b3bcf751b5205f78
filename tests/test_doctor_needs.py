"""What a recipe takes of memory and disk, as the doctor reckons it."""

import sys
from types import SimpleNamespace

import pytest
import torch

from recordings import record, smooth_episode
from xwam.doctor import machine
from xwam.doctor.needs import needs_of
from xwam.recipes import RECIPES


def test_needs_are_those_that_were_measured(tmp_path):
    """Peaks of `xwam train` on a CPU with 1302 rows of 128 x 128 from three cameras; see needs.py."""
    nano, codec = (needs_of(name, tmp_path) for name in ("nano", "nano-autoencoder"))
    assert nano.device == pytest.approx(2.4e9, rel=0.1)
    assert codec.device + 1302 * 3 * 128 * 128 * 4 == pytest.approx(1.6e9, rel=0.1)
    assert nano.run == pytest.approx(1.5 * 198.7e6 + 47.5e6 * 350 * 93 / 1302, rel=0.05)
    assert nano.host == 0, "latents are read from the disk"
    assert (nano.extras, nano.batch_size, nano.held_out) == (("model", "sim"), 48, 5)


def test_needs_follow_the_dataset(tmp_path):
    small = [name for name in RECIPES if not name.startswith("wan")]
    before = {name: needs_of(name, tmp_path) for name in small}
    record(tmp_path, [[smooth_episode(6, seed=k) for k in range(3)]])
    for name, needs in before.items():
        after = needs_of(name, tmp_path)
        assert after.dataset == 0 < needs.dataset
        films = name.endswith("autoencoder")
        assert 0 < after.host < needs.host if films else after.run < needs.run and needs.host == 0


def test_a_large_model_takes_what_its_plan_says(monkeypatch, tmp_path):
    seen = []
    found = SimpleNamespace(bytes=31e9, host={"moments": 2e9, "checkpoint being written": 10e9})
    monkeypatch.setattr("xwam.train.plan.plan", lambda run, gpus: seen.append(gpus) or found)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    needs = needs_of("wan22-5b-robotwin", tmp_path)
    assert (seen, needs.trains, needs.extras) == ([8], True, ("model", "wan"))
    assert needs.device == pytest.approx(31.5e9) and needs.host == 8 * 12e9 and needs.run == 3 * 8 * 10e9
    monkeypatch.setattr(machine, "_gpus", lambda: [("GPU", 24e9, 24e9, True)])
    assert [found.mend for found in machine.check_gpu(needs)] == ["xwam train wan22-5b-robotwin --plan"]


def test_a_released_model_takes_two_bytes_a_parameter(tmp_path):
    needs = needs_of("wan22-5b-robocasa", tmp_path)
    assert needs.device == pytest.approx(2 * 13.06e9, rel=0.05) and not needs.trains
    assert needs.lack("wan") == "failed" and needs.lack("sim") == "warning"


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no recipe 'nanno'; there are nano-autoencoder, .*nano, .*wan22-5b-robocasa"):
        needs_of("nanno", tmp_path)


def test_without_torch_the_doctor_asks_for_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "xwam.recipes", None)
    needs = needs_of("nano", tmp_path)
    assert needs.extras == ("model",)
    assert [found.mend for found in machine.check_memory(needs)] == ["pip install 'xwam[model]'"]
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [found.mend for found in machine.check_gpu(needs)] == ["pip install 'xwam[model]'"]
