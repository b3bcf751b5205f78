"""Published checkpoints become models that act: the 5B classes, at the size of the golden tensors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from xwam.convert import assembled_model, convert
from xwam.core.types import Observation
from xwam.model.config import TransformerConfig
from xwam.model.wan import UMT5TextEncoderConfig, WanAutoencoderConfig
from xwam.model.weights import RELEASED_FILE, read_released_checkpoint
from xwam.recipes import RELEASED as MODELS
from xwam.saved import ModelConfig
from xwam.wam import WorldActionModel

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
DATA = Path(__file__).parent / "parity_data"
RELEASED = DATA / "released_checkpoint"


def sizes_of(name: str) -> dict:
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"])


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    """RoboCasa's model at the golden sizes; latents and text are as wide as the network wants them."""
    full, sizes = MODELS["wan22-5b-robocasa"](), sizes_of("transformer")
    codec, text = sizes_of("wan_vae"), sizes_of("umt5")
    transformer = TransformerConfig(
        width=sizes["dim"], ffn_width=sizes["ffn_dim"], heads=sizes["num_heads"], blocks=sizes["num_layers"],
        depth_blocks=sizes["num_extra_layers"], views=sizes["num_views"], latent_channels=sizes["in_dim"],
        text_width=sizes["text_dim"], text_tokens=sizes["text_len"], frequency_width=sizes["freq_dim"],
        action_width=sizes["action_dim"], actions_per_frame=sizes["action_num"], proprio_width=sizes["proprio_dim"],
    )  # fmt: skip
    return full.model_copy(
        update={
            "transformer": transformer,
            "autoencoder": WanAutoencoderConfig(**codec),
            "text": UMT5TextEncoderConfig(**text, tokens=transformer.text_tokens),
            "image_size": (64, 96),
        }
    )


def observation(config: ModelConfig, seed: int = 0) -> Observation:
    random = np.random.default_rng(seed)
    names = config.embodiment.camera_names
    images = {name: random.integers(0, 256, (70, 100, 3), dtype=np.uint8) for name in names}
    K, T = np.array([[80.0, 0, 50], [0, 80, 35], [0, 0, 1]]), np.eye(4)
    proprio = np.array([0.2, 0.1, 0.5, 1, 0, 0, 0, 0.5], np.float32)
    return Observation(images, proprio, "open the drawer", {}, dict.fromkeys(names, K), dict.fromkeys(names, T))


@pytest.fixture(scope="module")
def model(config) -> WorldActionModel:
    """The released parts fit each other but for the golden files' widths, which random projections bridge."""
    model = assembled_model(read_released_checkpoint(RELEASED), config)
    encode, embed = model.autoencoder.encode, torch.randn(1, 16, 40, generator=torch.Generator().manual_seed(0))
    channels = config.transformer.latent_channels
    model.autoencoder.encode = lambda video: encode(video)[:, :channels]
    decode, padding = model.autoencoder.decode, config.autoencoder.z_dim - channels
    model.autoencoder.decode = lambda z: decode(torch.cat([z, z.new_zeros(len(z), padding, *z.shape[2:])], dim=1))
    model.text_encoder.encode = lambda texts: embed.expand(len(texts), -1, -1)
    return model


def test_released_model_acts_in_physical_units(model, config):
    chunk = model.act([observation(config)], [7])[0]
    assert chunk.actions.shape == (32, 7) and np.isfinite(chunk.actions).all()
    assert chunk.period_s == config.embodiment.action_period_s


def test_released_model_imagines_every_camera_with_relative_depth(model, config):
    dream = model.imagine(observation(config), seed=7)
    assert dream.scene.rgb.shape == (3, 9, 64, 96, 3)
    assert dream.scene.depth_scale == "relative"
    assert np.array_equal(dream.chunk.actions, model.act([observation(config)], [7])[0].actions)


def test_convert_writes_parts_and_the_way_back(tmp_path):
    convert(RELEASED, tmp_path / "parts", None)
    convert(tmp_path / "parts", tmp_path / "back", None)
    before, after = (read_released_checkpoint(path) for path in (RELEASED, tmp_path / "back" / RELEASED_FILE))
    for part, state in before.items():
        assert state.keys() == after[part].keys()
        assert all(torch.equal(tensor, after[part][name]) for name, tensor in state.items())


def test_unknown_released_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="no released model 'wan'; there are wan22-5b-robocasa"):
        convert(RELEASED, tmp_path, "wan")
