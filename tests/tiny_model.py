"""A model of random weights, small enough to run in milliseconds, and an observation for it."""

import numpy as np
import torch

from xwam.core.types import Observation
from xwam.model.autoencoders import SmallAutoencoderConfig
from xwam.model.config import TransformerConfig
from xwam.model.text import SmallTextEncoderConfig
from xwam.saved import ModelConfig, NoiseConfig
from xwam.sim.metaworld import embodiment
from xwam.wam import WorldActionModel

SIZE = 32


def tiny_config(**changes) -> ModelConfig:
    robot = embodiment()
    robot = robot.model_copy(
        update={
            "proprio": robot.proprio.fit([-0.3, 0.4, 0.0, 0.0], [0.3, 0.9, 0.3, 1.0]),
            "action": robot.action.fit([-1.0, -0.8, -0.9, -1.0], [0.7, 1.0, 1.0, 1.0]),
        }
    )
    transformer = TransformerConfig(
        width=24, ffn_width=48, heads=2, blocks=2, depth_blocks=1, views=3, latent_channels=8, text_width=16,
        text_tokens=8, frequency_width=16, action_width=4, actions_per_frame=2, proprio_width=4,
    )  # fmt: skip
    settings = {
        "transformer": transformer,
        "autoencoder": SmallAutoencoderConfig(channels=8, widths=(8, 8, 8)),
        "text": SmallTextEncoderConfig(width=16, tokens=8, buckets=64),
        "embodiment": robot,
        "noise": NoiseConfig(video_steps=6, action_steps=3, shift=3.0),
        "image_size": (SIZE, SIZE),
    }
    return ModelConfig(**settings | changes)


def tiny_model(**changes) -> WorldActionModel:
    """Weights that matter everywhere: as made, the network's last layers are 0."""
    torch.manual_seed(0)
    model = WorldActionModel(tiny_config(**changes))
    for parameter in model.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tiny_observation(seed: int = 0, instruction: str = "open the drawer") -> Observation:
    random = np.random.default_rng(seed)
    names = embodiment().camera_names
    images = {name: random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for name in names}
    K = np.array([[40.0, 0, SIZE / 2], [0, 40, SIZE / 2], [0, 0, 1]])
    proprio = np.array([0.1, 0.6, 0.2, 0.9], np.float32)
    return Observation(images, proprio, instruction, {}, dict.fromkeys(names, K), dict.fromkeys(names, np.eye(4)))
