"""Short videos of single cameras, RGB or coded depth alike: what a video autoencoder trains on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8
from rich.progress import track
from torch import Tensor

from xwam.core.embodiment import Embodiment
from xwam.data.clips import ClipId
from xwam.data.episodes import EpisodeStore
from xwam.data.sampling import check_ranks
from xwam.data.transforms import resize_nearest, resize_rgb

DEPTH_SHARE = 1 / 3
# Where validation draws from: a step that no training run reaches.
VALIDATION_STEP = 2**40


@dataclass(frozen=True)
class Films:
    """Whole episodes of single cameras: colours, and depth coded to one grey channel where it was recorded.

    `colour_of` and `depth_of` tell what each film is called.
    """

    colour: list[UInt8[np.ndarray, "T H W 3"]]
    depth: list[UInt8[np.ndarray, "T H W 1"]]
    colour_of: list[ClipId] = field(default_factory=list)
    depth_of: list[ClipId] = field(default_factory=list)


@dataclass(frozen=True)
class SnippetBatches:
    """Random snippets of `frames` frames, `stride` rows apart, out of films in memory; a function of (seed, step).

    Of the `batch_size` snippets of a step a rank has its share.
    """

    training: Films
    held_out: Films
    frames: int
    stride: int
    batch_size: int
    seed: int
    validation_batches: int = 8
    rank: int = 0
    ranks: int = 1

    def __post_init__(self):
        check_ranks(self.batch_size, self.rank, self.ranks)

    def train(self, step: int) -> UInt8[Tensor, "B 3 F H W"]:
        return self._batch(self.training, step)

    def ids(self, step: int) -> list[ClipId]:
        """Where the snippets of a step begin, those of all ranks."""
        random = np.random.default_rng([self.seed, step])
        found = []
        for _ in range(self.batch_size):
            depth, film, row = self._draw(self.training, random)
            found.append((self.training.depth_of if depth else self.training.colour_of)[film]._replace(row=row))
        return found

    def validation(self) -> Iterator[UInt8[Tensor, "B 3 F H W"]]:
        """The same held-out snippets each time."""
        for index in range(self.validation_batches):
            yield self._batch(self.held_out, VALIDATION_STEP + index)

    def _batch(self, films: Films, step: int) -> UInt8[Tensor, "B 3 F H W"]:
        random = np.random.default_rng([self.seed, step])
        share = self.batch_size // self.ranks
        drawn = [self._snippet(films, random) for _ in range((self.rank + 1) * share)]
        videos = np.stack(drawn[-share:])
        return torch.from_numpy(videos).permute(0, 4, 1, 2, 3)

    def _snippet(self, films: Films, random: np.random.Generator) -> UInt8[np.ndarray, "F H W 3"]:
        depth, index, first = self._draw(films, random)
        film = (films.depth if depth else films.colour)[index]
        rows = first + self.stride * np.arange(self.frames)
        snippet = film[np.minimum(rows, len(film) - 1)]
        return np.broadcast_to(snippet, (*snippet.shape[:3], 3))

    def _draw(self, films: Films, random: np.random.Generator) -> tuple[bool, int, int]:
        """Whether a snippet is of depth, of which film, and on which row it begins."""
        depth = bool(random.random() < DEPTH_SHARE and films.depth)
        chosen = films.depth if depth else films.colour
        film = int(random.integers(len(chosen)))
        return depth, film, int(random.integers(len(chosen[film])))


def films_of(store: EpisodeStore, embodiment: Embodiment, episodes: Sequence[int], size: tuple[int, int]) -> Films:
    """Every camera's film of whole episodes, at this height and width.

    Decoding once from front to back costs less than random access to a few hundred snippets.
    """
    films = Films([], [])
    for episode in track(episodes, description="Loading films"):
        name = ClipId(store.root.name, store.info(episode).environment, episode, 0)
        for camera in embodiment.cameras:
            views = store.read(episode, range(store.info(episode).length), [camera.name])
            films.colour.append(resize_rgb(views.rgb[camera.name], size))
            films.colour_of.append(name)
            if camera.name in views.depth_m:
                code = camera.depth.encode(resize_nearest(views.depth_m[camera.name], size))
                films.depth.append(((code + 1) * 127.5).round().astype(np.uint8)[..., None])
                films.depth_of.append(name)
    return films
