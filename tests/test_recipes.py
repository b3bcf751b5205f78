"""The recipes over Wan2.2: the paper's settings and the published model's size, built without memory."""

from pathlib import Path

import pytest
import torch

from recordings import robot
from xwam.core.embodiment_file import embodiment_text
from xwam.data.layout import EMBODIMENT_PATH
from xwam.model.transformer import WorldActionTransformer
from xwam.recipes import RECIPES, RELEASED, configured
from xwam.train.runs import ModelRun

PLACES = (Path("dataset"), Path("autoencoder"))
WAN = ("wan22-5b-robocasa", "wan22-5b-robotwin", "wan22-5b-pretrain")


@pytest.fixture(scope="module")
def network() -> WorldActionTransformer:
    with torch.device("meta"):
        return WorldActionTransformer(RELEASED["wan22-5b-robocasa"]().transformer)


def test_the_network_is_as_large_as_the_published_one(network):
    parameters = dict(network.named_parameters())
    assert len(parameters) == 1115
    assert sum(x.numel() for x in parameters.values()) == 6_674_911_646
    added = ("view_embedding", "action_", "proprio_", "depth_")
    trunk = [x.numel() for name, x in parameters.items() if not name.startswith(added)]
    assert (len(trunk), sum(trunk)) == (825, 4_999_787_712)
    assert sum(x.numel() for x in network.depth_blocks.parameters()) == pytest.approx(1636.6e6, abs=5e4)


def test_settings_are_the_papers():
    runs = {name: RECIPES[name](*PLACES) for name in WAN}
    assert {name: (run.batch_size, run.train.steps) for name, run in runs.items()} == {
        "wan22-5b-robocasa": (128, 20_000),
        "wan22-5b-robotwin": (128, 20_000),
        "wan22-5b-pretrain": (2048, 40_000),
    }
    assert runs["wan22-5b-pretrain"].train.learning_rate == 1e-4
    for run in runs.values():
        train, model = run.train, run.model
        assert (train.schedule, train.warmup_steps, train.weight_decay) == ("cosine", 1000, 0.01)
        assert (train.gradient_clip, train.precision, train.ema_decay) == (1.0, "bf16", 0.0)
        assert (model.noise.law, model.noise.clean_action_probability, model.noise.shift) == ("asynchronous", 0.5, 5.0)
        assert (model.text_dropout, model.crop_ratio, model.image_size) == (0.1, 0.95, (256, 320))
        assert (model.frames, model.actions, model.latent_frames) == (9, 32, 3)
        assert type(run).parse(run.model_dump(mode="json")) == run, "complete"
    for name in WAN[:2]:
        assert 1e-5 <= runs[name].train.learning_rate <= 3e-5


def test_all_share_one_network_whose_released_model_is_robocasas():
    runs = {name: RECIPES[name](*PLACES) for name in WAN}
    assert len({run.model.transformer for run in runs.values()}) == 1
    assert runs["wan22-5b-robocasa"].model == RELEASED["wan22-5b-robocasa"]()


def configured_for(folder: Path, **changes) -> ModelRun:
    path = folder / EMBODIMENT_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(embodiment_text(robot().model_copy(update=changes)))
    return configured("wan22-5b-robocasa", folder, Path("autoencoder"), ())


def test_the_network_keeps_its_sizes_for_a_robot_that_fits_them(tmp_path):
    run = configured_for(tmp_path, actions_per_frame=4)
    assert run.model.transformer == RELEASED["wan22-5b-robocasa"]().transformer
    assert run.model.embodiment.name == robot().name
    assert (run.model.embodiment.action.width, run.model.embodiment.proprio.width) == (14, 16)


def test_a_robot_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 actions a frame, the network at most 3 and exactly 4"):
        configured_for(tmp_path, actions_per_frame=2)
