"""Published X-WAM checkpoints: to safetensors and back, and to a model that acts."""

from collections.abc import Mapping
from pathlib import Path

import torch

from xwam.model.wan import UMT5TextEncoder, WanAutoencoder
from xwam.model.weights import (
    RELEASED_FILE,
    State,
    convert_released,
    load_transformer,
    read_converted,
    read_released_checkpoint,
    write_released,
)
from xwam.recipes import RELEASED
from xwam.saved import ModelConfig
from xwam.wam import WorldActionModel


def convert(source: Path, out: Path, model: str | None) -> None:
    """A released checkpoint to safetensors, one file a part, or such a folder back; with `model`, to a model folder."""
    if model is not None:
        if model not in RELEASED:
            raise ValueError(f"no released model {model!r}; there are {', '.join(RELEASED)}")
        assembled = assembled_model(read_released_checkpoint(source), RELEASED[model]())
        assembled.save(out, {"released": source.name})
    elif (source / "transformer.safetensors").is_file():
        write_released(read_converted(source), out / RELEASED_FILE)
    else:
        convert_released(source, out)
    print(f"Written: {out}")


def assembled_model(parts: Mapping[str, State], config: ModelConfig, tokenizer: Path | None = None) -> WorldActionModel:
    """The model of a released checkpoint's parts; every weight must be there and fit."""
    with torch.device("meta"):
        model = WorldActionModel(config, tokenizer)
    load_transformer(model.transformer, parts["transformer"])
    statistics = {name: tuple(values.tolist()) for name, values in parts["latent_statistics"].items()}
    codec = config.autoencoder.model_copy(update=statistics)
    model.autoencoder = WanAutoencoder.from_original(parts["autoencoder"], codec)
    model.text_encoder = UMT5TextEncoder.from_original(parts["text_encoder"], config.text, tokenizer)
    model.config = config.model_copy(update={"autoencoder": codec})
    return model.eval()
