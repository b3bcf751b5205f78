"""Runs that begin with the weights of others, and what they remember of them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recordings import robot
from toy_runs import build_home, run_of, small_codec
from xwam.core.files import read_json
from xwam.model.fingerprint import fingerprint_of_files
from xwam.saved import described
from xwam.train import checkpoint
from xwam.train.encoding import load_autoencoder
from xwam.train.runs import AutoencoderRun, DataConfig, ModelRun
from xwam.train.start import fill_model
from xwam.train.trainer import TrainConfig
from xwam.wam import WorldActionModel


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return build_home(tmp_path_factory.mktemp("home"), wan=False)


@pytest.fixture(scope="module")
def first(home) -> Path:
    """The folder of a finished run."""
    run_of(home, home / "latents").train_in(home / "first")
    return home / "first"


def later_run(home: Path, first: Path, **changes) -> ModelRun:
    """One step so small that no weight moves."""
    brief = TrainConfig(steps=2, warmup_steps=1, save_every=1, precision="fp32", device="cpu", learning_rate=1e-30)
    still = {"train": brief.model_copy(update={"weight_decay": 0.0}), "export_dtype": "float32"}
    return run_of(home, home / "latents", start_from=str(first / "export"), **still | changes)


def test_a_run_begins_with_the_weights_it_is_given(home, first, tmp_path):
    exported = later_run(home, first).train_in(tmp_path)
    began, ended = (load_file(folder / "model.safetensors") for folder in (first / "export", exported))
    assert all(x.dtype == torch.bfloat16 for x in began.values())
    assert began.keys() == ended.keys() and any(name.startswith("text_encoder.") for name in began)
    for name in began.keys() - {name for name in began if name.startswith("autoencoder.")}:
        torch.testing.assert_close(ended[name], began[name].float(), rtol=1e-6, atol=1e-12, msg=name)


def test_what_it_began_with_is_remembered_with_all_that_was_trained_on(home, first, tmp_path):
    about = described(first / "export")
    about["provenance"]["trained_on"] = [["elsewhere/push", 7], ["toy/reach", 1]]
    (first / "export" / "config.json").write_text(json.dumps(about))
    provenance = described(later_run(home, first).train_in(tmp_path))["provenance"]
    began = provenance["started_from"]
    assert began["folder"] == "export"
    assert began["fingerprint"] == fingerprint_of_files([first / "export" / "model.safetensors"])
    assert began["provenance"]["recipe"]["data"]["dataset"] == str(home / "data")
    trained_on = provenance["trained_on"]
    assert trained_on[:2] == [["elsewhere/push", 7], ["toy/reach", 1]]
    assert len(trained_on) == len({tuple(episode) for episode in trained_on}) == 4, "3 of 4 episodes, 1 of them twice"


def test_a_resumed_run_reads_its_checkpoint_and_not_what_it_began_with(home, first, tmp_path):
    moved = tmp_path / "moved"
    (first / "export").rename(moved)
    run = later_run(home, first)
    run = run.model_copy(update={"start_from": str(moved)})
    run.train_in(tmp_path / "run")
    weights = checkpoint.latest(tmp_path / "run") / "ema.safetensors"
    changed = {name: x + 1 if "head" in name else x for name, x in load_file(weights).items()}
    save_file(changed, weights)
    moved.rename(first / "export")
    exported = run.train_in(tmp_path / "run")
    torch.testing.assert_close(
        load_file(exported / "model.safetensors")["transformer.head.linear.bias"],
        changed["transformer.head.linear.bias"],
    )
    assert described(exported)["provenance"]["started_from"]["folder"] == "moved"


def test_sizes_that_do_not_fit_are_refused(home, first, tmp_path):
    said = r"(?s)does not fit this model:\n  9 of another shape: transformer.blocks.0.ffn.up.weight"
    with pytest.raises(ValueError, match=said):
        later_run(home, first, sizes={"ffn_width": 40}).train_in(tmp_path)
    with pytest.raises(ValueError, match="has 2 heads, this model 4: set model.transformer.heads"):
        later_run(home, first, sizes={"heads": 4}).train_in(tmp_path)  # the same folder: nothing has begun in it
    with pytest.raises(ValueError, match="holds no model that xwam exported"):
        fill_model(WorldActionModel.load(first / "export"), home)


def test_the_autoencoder_stays_the_runs_own(home, first):
    model = WorldActionModel.load(first / "export")
    codec = {name: x.clone() for name, x in model.autoencoder.state_dict().items()}
    for x in model.autoencoder.state_dict().values():
        x.add_(1)
    fill_model(model, first / "export")
    for name, x in model.autoencoder.state_dict().items():
        torch.testing.assert_close(x, codec[name] + 1)


def autoencoder_run(home: Path, start_from: Path) -> AutoencoderRun:
    brief = TrainConfig(steps=2, warmup_steps=1, precision="fp32", device="cpu", learning_rate=1e-30, weight_decay=0)
    data = DataConfig(dataset=str(home / "data"), held_out=1)
    sizes = {"frames": 5, "stride": 1, "batch_size": 2, "image_size": (32, 32), "autoencoder": small_codec()}
    return AutoencoderRun(data=data, embodiment=robot(), train=brief, start_from=str(start_from), **sizes)


@pytest.mark.parametrize("place", ["small", "small/autoencoder.safetensors", "first/export"])
def test_an_autoencoder_begins_with_another_or_with_a_models(home, first, tmp_path, place):
    autoencoder_run(home, home / place).train_in(tmp_path)
    began, ended = (load_autoencoder(folder, small_codec()).state_dict() for folder in (home / place, tmp_path))
    for name, x in began.items():
        if not name.startswith("latent_"):
            torch.testing.assert_close(ended[name], x, msg=name)
    account = read_json(tmp_path / "started_from.json")
    assert account["folder"] in ("small", "export") and len(account["fingerprint"]) == 64
    autoencoder_run(home, tmp_path).train_in(tmp_path / "third")
    assert read_json(tmp_path / "third" / "started_from.json")["provenance"] == {"started_from": account}


def test_a_setting_younger_than_the_run_has_its_default_there(home, tmp_path):
    run = run_of(home, home / "latents")
    checkpoint.open_run(tmp_path, run)
    (tmp_path / "log.jsonl").touch()
    old = json.loads((tmp_path / "config.json").read_text())
    del old["start_from"], old["train"]["schedule"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    checkpoint.open_run(tmp_path, run)
    with pytest.raises(ValueError, match="start_from: None in the run, 'x' now"):
        checkpoint.open_run(tmp_path, run.model_copy(update={"start_from": "x"}))
