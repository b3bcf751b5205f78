"""Instructions to token embeddings: the protocol, and the small encoder that nano learns with its network."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable
from zlib import crc32

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xwam.core.config import Frozen


@runtime_checkable
class TextEncoder(Protocol):
    """Anything that turns instructions into `tokens` embeddings of `width` each; B instructions, L tokens."""

    width: int
    tokens: int

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B L D"]: ...


class SmallTextEncoderConfig(Frozen):
    """Sizes of the small text encoder: words are hashed into `buckets`."""

    width: int = 96
    tokens: int = 12
    buckets: int = 1024


class SmallTextEncoder(nn.Module):
    """One learned vector a word, found by its hash, plus one for its place; 0 after the last word."""

    def __init__(self, config: SmallTextEncoderConfig):
        super().__init__()
        self.config, self.width, self.tokens = config, config.width, config.tokens
        self.words = nn.Embedding(config.buckets, config.width)
        self.places = nn.Embedding(config.tokens, config.width)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Words beyond the last token are cut off; case and punctuation do not matter."""
        ids = self.tokenize(texts).to(self.words.weight.device)
        embedded = self.words(ids.clamp(min=0)) + self.places.weight
        return embedded * (ids >= 0)[..., None]

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "B L"]:
        """Word ids, -1 for padding."""
        ids = [word_ids(text, self.tokens, self.config.buckets) for text in texts]
        return torch.tensor(ids, dtype=torch.long).view(len(texts), self.tokens)


@lru_cache(maxsize=4096)
def word_ids(text: str, tokens: int, buckets: int) -> tuple[int, ...]:
    """`tokens` ids below `buckets`, -1 for padding; a dataset has few texts, and training asks for them often."""
    ids = [crc32(word.encode()) % buckets for word in re.findall(r"[a-z0-9']+", text.lower())[:tokens]]
    return (*ids, *[-1] * (tokens - len(ids)))
