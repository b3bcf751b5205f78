"""A run's checkpoint as a folder of weights that acts anywhere: the averages, in few bytes, and what they need.

Frozen parts that are large, Wan2.2's autoencoder and UMT5, stay where they are; the folder refers to them.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from xwam.model.fingerprint import fingerprint
from xwam.model.lora import LoraConfig, add_lora, trained_tensors
from xwam.model.wan import WanAutoencoderConfig
from xwam.saved import ModelConfig, Reference, references_of, write_saved
from xwam.train import checkpoint
from xwam.train.encoding import TextSource, load_autoencoder
from xwam.train.pieces import read_into
from xwam.wam import WorldActionModel

# Frozen parts with more weights than this are referred to.
LARGE = 100_000_000

Frozen = Literal["auto", "inside", "reference"]


@dataclass(frozen=True)
class Exporter:
    """What an export takes besides the checkpoint: the model, where its frozen parts are, and its account."""

    config: ModelConfig
    autoencoder: Path
    text: TextSource | None
    provenance: dict
    dtype: torch.dtype
    frozen: Frozen = "auto"

    def whole(self, found: Path, out: Path) -> None:
        """Writes the averages of checkpoint `found`, which any number of ranks may have written."""
        with torch.device("meta"):  # a model of billions is neither initialised here nor there twice
            model = WorldActionModel(self.config, text_encoder=None if self.text is None else nn.Module())
        model.to_empty(device="cpu")
        checkpoint.load_weights(model, checkpoint.averaged(found))
        references = {}
        if isinstance(self.config.autoencoder, WanAutoencoderConfig):
            model.autoencoder = load_autoencoder(self.autoencoder, self.config.autoencoder)
            references |= self._reference("autoencoder", model.autoencoder, self.autoencoder)
        if self.text is not None:
            model.text_encoder = self.text.load()
            references |= self._reference("text_encoder", model.text_encoder, Path(self.text.weights))
            shutil.copytree(self.text.tokenizer, out / "tokenizer", dirs_exist_ok=True)
        model.save(out, self.provenance, self.dtype, references)

    def adapter(self, found: Path, out: Path, lora: LoraConfig, base: Path, merge: bool) -> None:
        """Writes the adapter of checkpoint `found` alone, referring to its base, or merged into it."""
        with torch.device("meta"):
            model = WorldActionModel(self.config, text_encoder=nn.Module())
            add_lora(model, lora)
        tensors = {name: torch.empty(x.shape) for name, x in trained_tensors(model).items()}
        read_into(checkpoint.averaged(found), tensors)
        if merge:
            merged = WorldActionModel.load(base).adapted(self.config, lora, tensors)
            inside = {} if self.frozen == "inside" else references_of(base)
            if (base / "tokenizer").is_dir():
                shutil.copytree(base / "tokenizer", out / "tokenizer", dirs_exist_ok=True)
            merged.save(out, self.provenance, self.dtype, inside)
            return
        about = {"model": self.config.model_dump(mode="json"), "provenance": self.provenance}
        known = Reference(fingerprint=self.provenance["started_from"]["fingerprint"], path=str(base.absolute()))
        write_saved(out, tensors, about | {"adapter": lora.model_dump(mode="json")}, self.dtype, {"base": known})

    def _reference(self, part: str, module: nn.Module, place: Path) -> dict[str, Reference]:
        large = sum(x.numel() for x in module.parameters()) > LARGE
        if self.frozen == "inside" or (self.frozen == "auto" and not large):
            return {}
        return {part: Reference(fingerprint=fingerprint(module), path=str(place.absolute()))}
