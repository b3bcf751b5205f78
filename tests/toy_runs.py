"""Runs that train in milliseconds, and what they take: a dataset, both kinds of autoencoders, UMT5."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from recordings import record, robot, smooth_episode
from tiny_wan import SMALL_AUTOENCODER, SMALL_TEXT, write_tokenizer
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.config import TransformerConfig
from xwam.model.text import SmallTextEncoderConfig
from xwam.model.wan import UMT5TextEncoder, UMT5TextEncoderConfig, WanAutoencoder, WanAutoencoderConfig
from xwam.saved import ModelConfig, NoiseConfig
from xwam.train.runs import DataConfig, ModelRun
from xwam.train.trainer import TrainConfig
from xwam.train.validation import ValidationConfig

FRAMES = 5


def small_codec() -> SmallAutoencoderConfig:
    return SmallAutoencoderConfig(channels=8, widths=(8, 8, 8))


def build_home(home: Path, wan: bool = True) -> Path:
    """Fills a folder with what runs take, all tiny; Wan's parts take seconds to import."""
    record(home / "data", [[smooth_episode(9 + k, seed=k) for k in range(4)]])
    torch.manual_seed(0)
    (home / "small").mkdir()
    save_file(SmallAutoencoder(small_codec()).state_dict(), home / "small" / "autoencoder.safetensors")
    if wan:
        WanAutoencoder.from_config(**SMALL_AUTOENCODER).model.save_pretrained(home / "wan")
        UMT5TextEncoder.from_config(**SMALL_TEXT).model.save_pretrained(home / "umt5")
        write_tokenizer(home / "tokenizer")
    return home


def network(wan: bool = False, **changes) -> TransformerConfig:
    sizes = {"width": 24, "ffn_width": 48, "heads": 2, "blocks": 2, "depth_blocks": 1, "frequency_width": 16}
    inputs = {"views": 2, "latent_channels": 4 if wan else 8, "text_width": 32, "text_tokens": 12}
    vectors = {"action_width": 6, "actions_per_frame": 2, "proprio_width": 5}
    return TransformerConfig(**sizes | inputs | vectors | changes)


def run_of(home: Path, latents: Path, wan: bool = False, sizes: dict | None = None, **changes) -> ModelRun:
    """A run of a network small enough to train in milliseconds."""
    codec = WanAutoencoderConfig(**SMALL_AUTOENCODER) if wan else small_codec()
    text = UMT5TextEncoderConfig(**SMALL_TEXT) if wan else SmallTextEncoderConfig(width=32, tokens=12, buckets=64)
    transformer = network(wan, **sizes or {})
    inputs = {"transformer": transformer, "autoencoder": codec, "text": text, "embodiment": robot()}
    brief = TrainConfig(steps=2, warmup_steps=1, validate_every=2, save_every=2, precision="fp32", device="cpu")
    frozen = {"text_encoder": str(home / "umt5"), "tokenizer": str(home / "tokenizer")} if wan else {}
    settings = {
        "data": DataConfig(dataset=str(home / "data"), held_out=1),
        "autoencoder": str(home / ("wan" if wan else "small")),
        "model": ModelConfig(**inputs, noise=NoiseConfig(), frames=FRAMES, image_size=(32, 32), text_dropout=0.5),
        "train": brief,
        "batch_size": 3,
        "latents": str(latents),
        "validation": ValidationConfig(clips=2, levels=1, dreams=1),
    }
    return ModelRun(**settings | frozen | changes)
