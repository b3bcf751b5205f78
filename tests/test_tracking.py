"""Trackers: they show what the log holds, no step twice, and never stop a run."""

import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from test_trainer import Killed, Toy, ToyBatches, die_at, settings
from xwam.core.pictures import png
from xwam.train.tracking import Log, numbers_of, records_of
from xwam.train.trainer import Trainer


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number that TensorBoard's own reader finds in a run, with all its steps."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What the log holds, in the float32 of event files."""
    series: dict[str, list[tuple[int, float]]] = {}
    for record in records_of(run):
        for name, value in numbers_of(record).items():
            series.setdefault(name, []).append((record["step"], struct.unpack("f", struct.pack("f", value))[0]))
    return series


def test_tensorboard_shows_what_the_log_holds_and_a_resumed_run_no_step_twice(tmp_path):
    with pytest.raises(Killed):
        Trainer(Toy(), ToyBatches(die_at(3)), settings(), tmp_path).fit()
    assert [step for step, _ in shown(tmp_path)["losses/total"]][-1] >= 2
    Trainer(Toy(), ToyBatches(), settings(), tmp_path).fit()
    assert shown(tmp_path) == logged(tmp_path)
    assert [step for step, _ in shown(tmp_path)["losses/total"]] == [1, 2, 3, 4]
    names = {"losses/twice", "validation/total", "training/gradient_norm", "training/learning_rate", "training/seconds"}
    assert names < shown(tmp_path).keys()


def test_a_record_as_numbers():
    record = {"step": 3, "skipped": ["total"], "samples": [{"row": 1}], "learning_rate": 0.5, "a": {"b/c": 1}}
    assert numbers_of(record) == {"training/skipped": 1.0, "training/learning_rate": 0.5, "a/b/c": 1.0}


def test_tensorboard_shows_pictures(tmp_path):
    picture = png(np.arange(48, dtype=np.uint8).reshape(2, 8, 3))
    (tmp_path / "sheet.png").write_bytes(picture)
    log = Log(tmp_path, ["tensorboard"])
    log.add({"step": 70000, "pictures": {"sheet": "sheet.png", "lost": "lost.png"}})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["sheet"]
    [image] = events.Images("sheet")
    assert (image.step, image.height, image.width, image.encoded_image_string) == (70000, 2, 8, picture)


class FakeWandB:
    """wandb as far as it is used: a service that remembers runs by their id."""

    def __init__(self):
        self.runs: dict[str, list[dict]] = {}
        self.asked: list[dict] = []

    def init(self, **asked):
        self.asked.append(asked)
        sent = self.runs.setdefault(asked["id"], [])
        summary = {name: value for values in sent for name, value in values.items()}
        ignore = lambda *about, **more: None  # noqa: E731
        return SimpleNamespace(log=sent.append, summary=summary, define_metric=ignore, finish=ignore)

    def Image(self, path):
        return path


def test_wandb_gets_every_record_once_over_a_death_and_a_late_result(tmp_path, monkeypatch):
    service = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", service)
    config = settings(trackers=("wandb",))
    with pytest.raises(Killed):
        Trainer(Toy(), ToyBatches(die_at(3)), config, tmp_path).fit()
    Trainer(Toy(), ToyBatches(), config, tmp_path).fit()
    late = Log(tmp_path, ["wandb"])
    late.add({"step": 2, "closed_loop": {"success": 0.5}})
    [sent] = service.runs.values()
    series: dict[str, list[tuple[int, float]]] = {}
    for values in sent:
        for name in values.keys() - {name for name in values if name.endswith("/step")}:
            series.setdefault(name, []).append((values[f"{name.split('/')[0]}/step"], values[name]))
    whole = {}
    for record in records_of(tmp_path):
        for name, value in numbers_of(record).items():
            whole.setdefault(name, []).append((record["step"], value))
    del series["training/seconds"], whole["training/seconds"]  # of the steps that were done twice it is another one
    assert series == whole and series["closed_loop/success"] == [(2, 0.5)]
    assert {asked["resume"] for asked in service.asked} == {"allow"}
    assert service.asked[0]["config"] == json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("failing", ["init", "log"])
def test_a_tracker_that_fails_is_told_once_and_stops_nothing(tmp_path, monkeypatch, capsys, failing):
    service = FakeWandB()

    def fail(*about, **more):
        raise ConnectionError("no network")

    broken = fail if failing == "init" else lambda **asked: SimpleNamespace(log=fail, summary={}, define_metric=fail)
    service.init = broken
    monkeypatch.setitem(sys.modules, "wandb", service)
    assert Trainer(Toy(), ToyBatches(), settings(trackers=("tensorboard", "wandb")), tmp_path).fit()
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("wandb shows nothing from now on (no network)") == 1
    assert shown(tmp_path) == logged(tmp_path)


def test_without_wandb_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert Trainer(Toy(), ToyBatches(), settings(trackers=("wandb",)), tmp_path).fit()
    assert "wandb shows nothing" in capsys.readouterr().err


def test_trackers_may_change_when_a_run_is_resumed_and_must_be_known(tmp_path):
    Trainer(Toy(), ToyBatches(), settings(trackers=()), tmp_path).fit()
    assert not (tmp_path / "tensorboard").exists()
    Trainer(Toy(), ToyBatches(), settings(), tmp_path).fit()
    assert shown(tmp_path) == logged(tmp_path)
    with pytest.raises(ValueError, match="trackers"):
        settings(trackers=("tensorbord",))
