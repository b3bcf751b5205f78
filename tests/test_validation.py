"""What validation measures of a world action model: a perfect one has perfect numbers, a worse one worse ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recordings import robot
from toy_runs import build_home, run_of
from xwam.core.embodiment import Part, VectorSpec
from xwam.core.video import decoded
from xwam.flow.levels import Fixed
from xwam.train.encoding import load_autoencoder
from xwam.train.runs import ModelRun
from xwam.train.validation import ModelExamination, Pictures, ValidationConfig, action_errors
from xwam.wam import WorldActionModel

STEP = "validation/step_00000007"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ModelRun:
    home = build_home(tmp_path_factory.mktemp("home"), wan=False)
    run = run_of(home, home / "latents")
    return run.model_copy(update={"validation": ValidationConfig(clips=3, levels=2, dreams=2)})


class Oracle(WorldActionModel):
    """Knows what follows, but for noise of this size."""

    size = 0.0

    def sample(self, batch, seeds, world):
        noise = torch.randn(batch.streams.video.shape, generator=torch.Generator().manual_seed(seeds[0]))
        streams = batch.streams
        away = torch.where(batch.action_valid, self.size, 0.0)
        video, depth = (x + self.size * noise for x in (streams.video, streams.depth))
        return replace(streams, video=video, depth=depth, action=streams.action + away)


@pytest.fixture(scope="module")
def oracle(run) -> tuple[Oracle, ModelExamination]:
    autoencoder = load_autoencoder(Path(run.autoencoder), run.model.autoencoder)
    dataset = run.dataset(autoencoder)
    torch.manual_seed(0)
    model = Oracle(run.model.model_copy(update={"embodiment": dataset.robot})).eval()
    model.autoencoder.load_state_dict(autoencoder.state_dict())
    return model, ModelExamination(model, dataset.held_out, run.validation, Path(run.latents).parent, seed=0)


@torch.no_grad()
def examined(oracle, size: float, step: int = 7) -> dict:
    model, examination = oracle
    model.size = size
    return examination(step)


def test_a_perfect_model_has_perfect_numbers_and_noise_worse_ones(oracle):
    perfect, near, far = (examined(oracle, size) for size in (0.0, 0.1, 1.0))
    assert perfect["actions"].keys() == {
        f"{part}/{which}" for part in ("delta", "gripper") for which in ("first", "chunk")
    }
    for name, error in perfect["actions"].items():
        assert error == pytest.approx(0, abs=1e-6)
        assert error < near["actions"][name] < far["actions"][name]
    scores = perfect["imagined"]
    for measure in ("psnr_db", "abs_rel"):
        assert scores[measure] == scores[f"autoencoder/{measure}"] != far["imagined"][measure]
        assert scores[f"still/{measure}"] == far["imagined"][f"still/{measure}"]


@torch.no_grad()
def test_pictures_of_perfect_latents_are_perfect_and_of_noisy_ones_worse(oracle):
    model, examination = oracle
    batch, seeds = examination._batch(2, part=2)
    found = []
    for model.size in (0.0, 0.1, 1.0):
        sampled = model.sample(batch, seeds, world=True)
        seen, true = (Pictures(*model.pictures_of(streams)) for streams in (sampled, batch.streams))
        found.append(examination.scores(seen, true))
    assert found[0] == {"psnr_db": 100.0, "abs_rel": 0.0}
    assert found[0]["psnr_db"] > found[1]["psnr_db"] > found[2]["psnr_db"]
    assert 0 < found[1]["abs_rel"] < found[2]["abs_rel"]


def test_scores_of_the_truth_itself(oracle):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 2, 5, 16, 16, 3), dtype=np.uint8)
    true = Pictures(rgb, np.full(rgb.shape[:-1], 0.5, np.float32))
    assert oracle[1].scores(true, true) == {"psnr_db": 100.0, "abs_rel": 0.0}
    assert oracle[1].scores(true._replace(depth_m=true.depth_m * 1.1), true)["abs_rel"] == pytest.approx(0.1, rel=1e-5)
    assert oracle[1].scores(true._replace(depth_m=None), true) == {"psnr_db": 100.0}
    assert oracle[1].scores(true.still(), true)["psnr_db"] < 20


def test_losses_by_level_are_those_of_the_level(oracle):
    model, examination = oracle
    levels = examined(oracle, 0.0)["levels"]
    assert levels.keys() == {
        f"{stream}/sigma_{sigma}" for stream in ("video", "action", "proprio", "depth") for sigma in ("0.25", "0.75")
    }
    batch, seeds = examination._batch(3, part=0)
    with torch.no_grad():
        assert model.loss(batch, seeds, law=Fixed(0.75))["action"].item() == levels["action/sigma_0.75"]
    with pytest.raises(ValueError, match="sigma is 0.0"):
        Fixed(0.0)


def test_validation_repeats_itself(oracle):
    model, examination = oracle
    # the model's own sampling, in place of the oracle's
    batch, seeds = examination._batch(2, part=2)
    one, other = (WorldActionModel.sample(model, batch, seeds, world=True) for _ in range(2))
    assert torch.equal(one.video, other.video) and torch.equal(one.action, other.action)
    assert torch.equal(one.video[:, :, 0], batch.streams.video[:, :, 0]) and one.depth is not None
    blind = replace(batch.streams, action=torch.zeros_like(batch.streams.action))
    blind.video[:, :, 1:] = 0
    blind.proprio[:, 1:] = 0
    again = WorldActionModel.sample(model, replace(batch, streams=blind), seeds, world=True)
    assert torch.equal(again.video, one.video) and torch.equal(again.action, one.action), "it must not see the future"
    assert examined(oracle, 0.5)["imagined"] == examined(oracle, 0.5)["imagined"]


def test_pictures_show_the_true_above_the_imagined(oracle, run):
    pictures = examined(oracle, 0.0)["pictures"]
    folder = Path(run.latents).parent / STEP
    assert pictures == {"imagined": f"{STEP}/sheet.png"} and (folder / "sheet.png").stat().st_size > 1000
    films = sorted(folder.glob("*.mp4"))
    assert len(films) == 2 and all(film.name.startswith("toy_reach_") for film in films)
    frames = [frame.to_ndarray(format="rgb24") for frame in decoded(films[0])]
    assert len(frames) == 5 and frames[0].shape == (64, 128, 3)  # two views of 32 x 32 with depth


@pytest.mark.parametrize(
    ("kind", "size", "unit", "predicted", "error"),
    [
        ("delta_position", 3, "m", (3, 4, 0), 5.0),
        ("quaternion", 4, "1", (0, 0, 0, -2), np.pi),
        ("joint", 2, "rad", (1, -2), 1.5),
    ],
)
def test_action_errors_are_in_the_parts_units(kind, size, unit, predicted, error):
    vector = VectorSpec(parts=(Part(name="arm", kind=kind, size=size, unit=unit),), width=size)
    true = np.zeros((1, 3, size), np.float32)
    if kind == "quaternion":
        true[..., 0] = 1
    guess = true.copy()
    guess[0, 0] = predicted
    guess[0, 2] = 1e6  # past the end of the episode
    valid = np.array([[True, True, False]])
    found = action_errors(vector, guess, true, valid)
    assert found == {"arm/first": pytest.approx(error), "arm/chunk": pytest.approx(error / 2)}


def test_a_run_logs_what_was_examined(run, tmp_path):
    run.train_in(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    [found] = [record for record in records if "validation" in record]
    assert {"step", "validation", "levels", "actions", "imagined", "pictures"} == found.keys()
    assert (tmp_path / found["pictures"]["imagined"]).exists()
    assert robot().action.parts[0].name in next(iter(found["actions"]))
