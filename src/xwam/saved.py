"""A saved model's folder: what it holds itself, and what it refers to.

model.safetensors   weights, or those of an adapter alone
config.json         model        sizes, robot and its statistics
                    provenance   recipe, data, and the weights that training began with
                    references   parts that are elsewhere: which weights they have, and where they were last seen
                    adapter      settings of the adapter; `references` then tells of its base
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xwam.core.config import Frozen
from xwam.core.embodiment import Embodiment
from xwam.core.files import read_json, write_atomically, write_json
from xwam.flow.levels import NoiseConfig
from xwam.model.autoencoders import SmallAutoencoderConfig
from xwam.model.config import FRAMES_PER_LATENT, TransformerConfig
from xwam.model.fingerprint import fingerprint, fingerprint_of_files
from xwam.model.text import SmallTextEncoderConfig
from xwam.model.wan import UMT5TextEncoder, UMT5TextEncoderConfig, WanAutoencoder, WanAutoencoderConfig

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PARTS = ("base", "autoencoder", "text_encoder")


class ModelConfig(Frozen):
    """All that is needed to build a model without its weights."""

    transformer: TransformerConfig
    autoencoder: SmallAutoencoderConfig | WanAutoencoderConfig
    text: SmallTextEncoderConfig | UMT5TextEncoderConfig
    embodiment: Embodiment
    noise: NoiseConfig
    frames: int = 9
    image_size: tuple[int, int] = (128, 128)
    crop_ratio: float = 1.0
    text_dropout: float = 0.1

    @property
    def actions(self) -> int:
        return (self.frames - 1) * self.embodiment.actions_per_frame

    @property
    def latent_frames(self) -> int:
        return 1 + (self.frames - 1) // FRAMES_PER_LATENT


class Reference(Frozen):
    """A part that is not inside: the fingerprint of its weights, and where they were."""

    fingerprint: str
    path: str

    def find(self, part: str, places: Mapping[str, Path | str]) -> Path:
        """Where it is: as `places` says, or the environment, or as it was when the model was saved."""
        variable = f"XWAM_{part.upper()}"
        place = Path(places.get(part) or os.environ.get(variable) or self.path)
        if not place.exists():
            raise ValueError(f"no {part} at {place}: set {variable} to where its weights are, or give references")
        return place

    def check(self, part: str, place: Path, found: str) -> None:
        """Raises if the weights there are not those that the model was made with."""
        if found != self.fingerprint:
            raise ValueError(
                f"the {part} in {place} has fingerprint {found[:12]}, not {self.fingerprint[:12]}: "
                f"set XWAM_{part.upper()} to where those weights are"
            )


def write_saved(
    folder: Path,
    weights: Mapping[str, Tensor],
    about: dict,
    dtype: torch.dtype,
    references: Mapping[str, Reference],
) -> None:
    """Writes both files; weights of parts that are referred to are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    left_out = tuple(f"{part}." for part in references)
    kept = {name: x for name, x in weights.items() if not name.startswith(left_out)}
    kept = {name: x.detach().to(dtype).contiguous() for name, x in kept.items()}
    seen = set()
    for name, x in kept.items():
        if x.data_ptr() in seen:  # tied, as UMT5's embeddings are: safetensors wants each on its own
            kept[name] = x.clone()
        seen.add(x.data_ptr())
    write_atomically(folder / WEIGHTS, lambda path: save_file(kept, path))
    told = {part: reference.model_dump(mode="json") for part, reference in references.items()}
    write_json(folder / CONFIG, about | ({"references": told} if told else {}))


def described(folder: Path) -> dict:
    """What config.json says of a saved model; it has at least `model` and `provenance`."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: name a folder that `xwam train` exported")
    about = read_json(path)
    if missing := {"model", "provenance"} - about.keys():
        raise ValueError(f"{path} lacks {sorted(missing)}: it was not written by xwam, export the model again")
    return about


def references_of(folder: Path) -> dict[str, Reference]:
    """Which parts of a saved model are elsewhere."""
    told = described(folder).get("references", {})
    if unknown := sorted(told.keys() - set(PARTS)):
        raise ValueError(f"{folder / CONFIG} refers to {unknown[0]!r}, unknown to this version: update xwam")
    return {part: Reference.parse(reference) for part, reference in told.items()}


def base_of(reference: Reference, places: Mapping[str, Path | str]) -> Path:
    """The folder of an adapter's base; ValueError if its weights are others by now."""
    place = reference.find("base", places)
    reference.check("base", place, fingerprint_of_files([place / WEIGHTS]))
    return place


def autoencoder_of(
    reference: Reference, places: Mapping[str, Path | str], config: WanAutoencoderConfig
) -> WanAutoencoder:
    """Wan2.2's autoencoder that a model refers to; ValueError if it is another."""
    place = reference.find("autoencoder", places)
    autoencoder = WanAutoencoder.load(place, config)
    reference.check("autoencoder", place, fingerprint(autoencoder))
    return autoencoder


def text_encoder_of(
    reference: Reference, places: Mapping[str, Path | str], tokenizer: Path, config: UMT5TextEncoderConfig
) -> UMT5TextEncoder:
    """UMT5 that a model refers to, with the tokenizer beside the model; ValueError if it is another."""
    place = reference.find("text_encoder", places)
    encoder = UMT5TextEncoder.load(place, tokenizer, config)
    reference.check("text_encoder", place, fingerprint(encoder))
    return encoder


def read_weights(folder: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of model.safetensors; ValueError if it is missing or damaged."""
    try:
        return load_file(folder / WEIGHTS, device=device)
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}; export or copy it again") from error


def check_fit(
    folder: Path, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], parts: Collection[str]
) -> None:
    """Raises unless the weights are those that the model wants, but for parts that are elsewhere."""
    elsewhere = tuple(f"{part}." for part in parts)
    fit = {name: tuple(x.shape) for name, x in wanted.items() if not name.startswith(elsewhere)}
    have = {name: tuple(x.shape) for name, x in weights.items()}
    if wrong := sorted(name for name in fit.keys() | have.keys() if have.get(name) != fit.get(name)):
        raise ValueError(f"{folder / WEIGHTS} does not fit {CONFIG} at {len(wrong)} weights, such as {wrong[0]!r}")
