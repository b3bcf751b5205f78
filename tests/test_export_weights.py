"""Checkpoints as small folders: whole, or referring to what is large, and refused where something does not fit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from test_cli import refused, xwam
from toy_runs import build_home, run_of
from xwam.saved import described
from xwam.train import checkpoint
from xwam.train.runs import run_of as run_in
from xwam.wam import WorldActionModel


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A finished run of nano's kind, and one with Wan's autoencoder and UMT5."""
    home = build_home(tmp_path_factory.mktemp("home"))
    for wan in (False, True):
        run_of(home, home / f"latents-{wan}", wan).train_in(home / ("big" if wan else "nano"))
    return home


def test_a_checkpoint_becomes_a_folder_that_loads(home, tmp_path, capsys):
    xwam("export-weights", home / "nano", tmp_path, "--step", 2, "--dtype", "float32")
    exported, averages = load_file(tmp_path / "model.safetensors"), checkpoint.latest(home / "nano")
    averages = load_file(averages / "ema.safetensors")
    assert exported.keys() == averages.keys(), "one folder that holds all"
    assert all(torch.equal(x, averages[name]) for name, x in exported.items())
    about, finished = described(tmp_path), described(home / "nano" / "export")
    assert about == finished and about["provenance"]["step"] == 2 and len(about["provenance"]["trained_on"]) == 3
    assert about["model"]["embodiment"]["action"]["q01"], "the statistics are the robot's"
    WorldActionModel.load(tmp_path)


def test_what_is_large_is_referred_to(home, tmp_path):
    run_in(home / "big").export(home / "big", tmp_path, dtype="float32", frozen="reference")
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names and all(name.startswith("transformer.") for name in names)
    references = described(tmp_path)["references"]
    assert {part: reference["path"] for part, reference in references.items()} == {
        "autoencoder": str(home / "wan"),
        "text_encoder": str(home / "umt5"),
    }
    run_in(home / "big").export(home / "big", tmp_path / "inside", dtype="float32", frozen="inside")
    assert "references" not in described(tmp_path / "inside")
    models = [WorldActionModel.load(folder) for folder in (tmp_path, tmp_path / "inside")]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())
    texts = [model.text_encoder.encode(["press the button"]) for model in models]
    assert torch.equal(*texts)


def test_another_part_than_the_models_is_refused(home, tmp_path, monkeypatch):
    run_in(home / "big").export(home / "big", tmp_path, frozen="reference")
    about = json.loads((tmp_path / "config.json").read_text())
    about["references"]["text_encoder"]["path"] = str(tmp_path / "gone")
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="no text_encoder at .*gone: set XWAM_TEXT_ENCODER"):
        WorldActionModel.load(tmp_path)
    monkeypatch.setenv("XWAM_TEXT_ENCODER", str(home / "umt5"))
    WorldActionModel.load(tmp_path)
    about["references"]["autoencoder"]["fingerprint"] = "1" * 64
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="the autoencoder in .* has fingerprint .* not 111111111111: set XWAM_AUTOENC"):
        WorldActionModel.load(tmp_path)
    about["references"]["camera"] = about["references"]["autoencoder"]
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="refers to 'camera', unknown to this version"):
        WorldActionModel.load(tmp_path)


def test_what_is_not_there_is_told_in_a_line(home, tmp_path, capsys):
    assert "is no run's folder" in refused(capsys, "export-weights", tmp_path, tmp_path / "out")
    said = refused(capsys, "export-weights", home / "nano", tmp_path / "out", "--step", 7)
    assert "has no checkpoint of step 7: there are [2]" in said
    (home / "nano" / "provenance.json").rename(tmp_path / "provenance.json")
    assert "does not say what it was trained on" in refused(capsys, "export-weights", home / "nano", tmp_path / "out")
    (tmp_path / "provenance.json").rename(home / "nano" / "provenance.json")
    assert not (tmp_path / "out").exists()
