"""Short videos of single cameras, RGB or coded depth alike: what a video autoencoder trains on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from rich.progress import track
from torch import Tensor

from xwam.core.embodiment import Embodiment
from xwam.data.episodes import EpisodeStore

DEPTH_SHARE = 1 / 3
# Where validation draws from: a step that no training run reaches.
VALIDATION_STEP = 2**40


@dataclass(frozen=True)
class SnippetBatches:
    """Random snippets of `frames` frames, `stride` rows apart, out of films in memory; a function of (seed, step)."""

    training: list[UInt8[np.ndarray, "T H W C"]]
    held_out: list[UInt8[np.ndarray, "T H W C"]]
    frames: int
    stride: int
    batch_size: int
    seed: int
    validation_batches: int = 8

    def train(self, step: int) -> UInt8[Tensor, "B 3 F H W"]:
        return self._batch(self.training, step)

    def validation(self) -> Iterator[UInt8[Tensor, "B 3 F H W"]]:
        """The same held-out snippets each time."""
        for index in range(self.validation_batches):
            yield self._batch(self.held_out, VALIDATION_STEP + index)

    def _batch(self, films: list[UInt8[np.ndarray, "T H W C"]], step: int) -> UInt8[Tensor, "B 3 F H W"]:
        random = np.random.default_rng([self.seed, step])
        videos = np.stack([self._snippet(films, random) for _ in range(self.batch_size)])
        return torch.from_numpy(videos).permute(0, 4, 1, 2, 3)

    def _snippet(self, films: list[np.ndarray], random: np.random.Generator) -> UInt8[np.ndarray, "F H W 3"]:
        colour, depth = films[::2], films[1::2]
        film = (depth if random.random() < DEPTH_SHARE else colour)[random.integers(len(colour))]
        rows = random.integers(len(film)) + self.stride * np.arange(self.frames)
        snippet = film[np.minimum(rows, len(film) - 1)]
        return np.broadcast_to(snippet, (*snippet.shape[:3], 3))


def films_of(
    store: EpisodeStore, embodiment: Embodiment, episodes: Sequence[int]
) -> list[UInt8[np.ndarray, "T H W C"]]:
    """Every camera's film of whole episodes, in pairs: RGB, then depth coded to one grey channel.

    Decoding once from front to back costs less than random access to a few hundred snippets.
    """
    films = []
    for episode in track(episodes, description="Loading films"):
        views = store.read(episode, range(store.info(episode).length))
        for camera in embodiment.cameras:
            code = camera.depth.encode(views.depth_m[camera.name])
            grey = ((code + 1) * 127.5).round().astype(np.uint8)
            films += [views.rgb[camera.name], grey[..., None]]
    return films
