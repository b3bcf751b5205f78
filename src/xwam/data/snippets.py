"""Short videos of single cameras, RGB or coded depth alike: what a video autoencoder trains on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from xwam.core.embodiment import Embodiment
from xwam.data.episodes import EpisodeStore

DEPTH_SHARE = 1 / 3
# Where validation draws from: a step that no training run reaches.
VALIDATION_STEP = 2**40


class SnippetBatches:
    """Random snippets of `frames` frames, `stride` rows apart; a function of (seed, step)."""

    def __init__(
        self,
        root: Path,
        embodiment: Embodiment,
        training: Sequence[int],
        held_out: Sequence[int],
        *,
        frames: int,
        stride: int,
        batch_size: int,
        seed: int,
        validation_batches: int = 8,
    ):
        self._store, self._embodiment = EpisodeStore(root), embodiment
        self._training, self._held_out = list(training), list(held_out)
        self._frames, self._stride, self._batch_size = frames, stride, batch_size
        self._seed, self._validation_batches = seed, validation_batches

    def train(self, step: int) -> UInt8[Tensor, "B 3 F H W"]:
        return self._batch(self._training, step)

    def validation(self) -> Iterator[UInt8[Tensor, "B 3 F H W"]]:
        """The same held-out snippets each time."""
        for index in range(self._validation_batches):
            yield self._batch(self._held_out, VALIDATION_STEP + index)

    def _batch(self, episodes: list[int], step: int) -> UInt8[Tensor, "B 3 F H W"]:
        random = np.random.default_rng([self._seed, step])
        videos = np.stack([self._snippet(episodes, random) for _ in range(self._batch_size)])
        return torch.from_numpy(videos).permute(0, 4, 1, 2, 3)

    def _snippet(self, episodes: list[int], random: np.random.Generator) -> UInt8[np.ndarray, "F H W 3"]:
        episode = int(random.choice(episodes))
        camera = self._embodiment.cameras[random.integers(len(self._embodiment.cameras))]
        as_depth = random.random() < DEPTH_SHARE
        length = self._store.info(episode).length
        rows = random.integers(length) + self._stride * np.arange(self._frames)
        views = self._store.read(episode, np.minimum(rows, length - 1), [camera.name], depth=as_depth)
        if not as_depth:
            return views.rgb[camera.name]
        code = camera.depth.encode(views.depth_m[camera.name])
        return np.repeat(((code + 1) * 127.5).round().astype(np.uint8)[..., None], 3, axis=-1)
