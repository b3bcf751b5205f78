"""What a recipe takes of memory and disk, reckoned from its configuration without building anything."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from xwam.doctor.finding import State

if TYPE_CHECKING:
    from xwam.data.episodes import EpisodeStore
    from xwam.saved import ModelConfig
    from xwam.train.runs import AutoencoderRun, ModelRun
    from xwam.wam import WorldActionModel

# Bytes that training takes besides weights, gradients, moments and averages; fitted to the peaks of nano's recipes on a
# CPU, 2.4 GB for the model and 1.6 GB for the autoencoder with the films of 14 episodes.
LIBRARIES_BYTES = 0.5e9
ACTIVATION_BYTES = 0.22  # a sample, a unit of the network's width, a block, a pixel of a latent frame
AUTOENCODER_ACTIVATION_BYTES = 900  # a pixel of a snippet
FILM_BYTES = 4  # a pixel: RGB and coded depth
# What `xwam record` makes by default, as measured: 7 tasks, 50 episodes each, three views of 128 x 128 with depth.
DEFAULT_TASKS, DEFAULT_EPISODES = 7, 50
EPISODE_ROWS, ROW_BYTES = 93, 9300
# Two, and the one that is being written; weights and their averages, and two moments of those that are trained.
KEPT_CHECKPOINTS = 3
RELEASED_BYTES = 37e9


@dataclass(frozen=True)
class Needs:
    """What a recipe cannot do without; sizes in bytes, `device` where it computes, None if that cannot be told yet."""

    recipe: str
    extras: tuple[str, ...]
    trains: bool
    device: float | None = None
    host: float = 0
    dataset: float = 0
    run: float = 0
    batch_size: int = 0
    held_out: float = 0

    def lack(self, extra: str) -> State:
        """How grave it is to lack what belongs to this extra."""
        return "failed" if extra in self.extras else "warning"


def needs_of(recipe: str, dataset: Path) -> Needs:
    """The needs of a released model that acts, or else of a named run; without torch, only that torch is needed.

    What training takes of the recipe that has a released model's name, `xwam train RECIPE --plan` tells.
    """
    try:
        from xwam.model.wan import UMT5TextEncoderConfig
        from xwam.recipes import RECIPES, RELEASED
        from xwam.train.runs import AutoencoderRun
    except ImportError:
        return Needs(recipe, ("model",), trains=True)
    if recipe in RELEASED:
        return _of_released(recipe, RELEASED[recipe]())
    if recipe not in RECIPES:
        raise ValueError(f"no recipe {recipe!r}; there are {', '.join({**RECIPES, **RELEASED})}")
    run, store = RECIPES[recipe](dataset, Path("autoencoder")), _opened(dataset)
    if isinstance(run, AutoencoderRun):
        return _of_autoencoder(recipe, run, store)
    return (_of_large if isinstance(run.model.text, UMT5TextEncoderConfig) else _of_model)(recipe, run, store)


def _of_released(recipe: str, config: "ModelConfig") -> Needs:
    """Acting in bfloat16."""
    extras = ("model", "wan")
    try:
        weights = 2 * sum(x.numel() for x in _unallocated(config).parameters())
    except ImportError:
        return Needs(recipe, extras, trains=False)
    return Needs(recipe, extras, trains=False, device=weights + LIBRARIES_BYTES, run=RELEASED_BYTES + weights)


def _of_model(recipe: str, run: "ModelRun", store: "EpisodeStore | None") -> Needs:
    model, network, frames = _unallocated(run.model), run.model.transformer, run.model.latent_frames
    latents = _latents(run, model.autoencoder.spatial_stride, store)
    every = sum(x.numel() for x in model.parameters())
    trained = sum(x.numel() for x in model.parameters() if x.requires_grad)
    height, width = run.model.image_size
    activations = network.width * network.blocks * network.views * frames * height * width * ACTIVATION_BYTES
    return Needs(
        recipe,
        ("model", "sim"),
        trains=True,
        device=4 * every + 16 * trained + run.batch_size * activations + LIBRARIES_BYTES,
        dataset=_recording(store),
        run=latents + KEPT_CHECKPOINTS * 8 * (every + trained),
        batch_size=run.batch_size,
        held_out=run.data.held_out,
    )


def _of_large(recipe: str, run: "ModelRun", store: "EpisodeStore | None") -> Needs:
    """As planned for all GPUs of this machine together, or for one."""
    import torch

    from xwam.train.plan import plan

    gpus = max(1, torch.cuda.device_count())
    gpus = gpus if run.batch_size % gpus == 0 else 1
    try:
        found = plan(run, gpus)
    except ImportError:
        return Needs(recipe, ("model", "wan"), trains=True)
    latents = _latents(run, 2 ** len(run.model.autoencoder.dim_mult), store) if store else 0
    saved = found.host["checkpoint being written"] * gpus
    return Needs(
        recipe,
        ("model", "wan"),
        trains=True,
        device=found.bytes + LIBRARIES_BYTES,
        host=sum(found.host.values()) * gpus,
        run=latents + KEPT_CHECKPOINTS * saved,
        batch_size=run.batch_size,
        held_out=run.data.held_out,
    )


def _latents(run: "ModelRun", stride: int, store: "EpisodeStore | None") -> float:
    """Bytes on disk of all versions of a dataset's latents, which are of colour and of depth, in two bytes a number."""
    network, (height, width) = run.model.transformer, run.model.image_size
    clip = network.latent_channels * run.model.latent_frames * network.views * (height // stride) * (width // stride)
    rows = _rows(store, range(len(store))) if store else DEFAULT_TASKS * DEFAULT_EPISODES * EPISODE_ROWS
    return run.versions * rows // run.start_stride * clip * 2 * 2


def _of_autoencoder(recipe: str, run: "AutoencoderRun", store: "EpisodeStore | None") -> Needs:
    import torch

    from xwam.model.autoencoders import SmallAutoencoder
    from xwam.train.runs import thinned

    with torch.device("meta"):
        weights = sum(x.numel() for x in SmallAutoencoder(run.autoencoder).parameters())
    filmed = run.episodes_per_environment + run.data.held_out
    rows, pixels = DEFAULT_TASKS * filmed * EPISODE_ROWS, prod(run.image_size)
    if store:
        rows = _rows(store, thinned(store, range(len(store)), filmed))
    activations = run.frames * pixels * AUTOENCODER_ACTIVATION_BYTES
    return Needs(
        recipe,
        ("model", "sim"),
        trains=True,
        device=20 * weights + run.batch_size * activations + LIBRARIES_BYTES,
        host=rows * len(run.embodiment.cameras) * pixels * FILM_BYTES,
        dataset=_recording(store),
        run=KEPT_CHECKPOINTS * 16 * weights,
        batch_size=run.batch_size,
        held_out=run.data.held_out,
    )


def _unallocated(config: "ModelConfig") -> "WorldActionModel":
    """The model with the sizes of its weights and no memory for them."""
    import torch

    from xwam.wam import WorldActionModel

    with torch.device("meta"):
        return WorldActionModel(config)


def _opened(dataset: Path) -> "EpisodeStore | None":
    """The dataset if it can be read; `check_dataset` says why it cannot."""
    from xwam.data.episodes import EpisodeStore

    try:
        return EpisodeStore(dataset)
    except ValueError:
        return None


def _recording(store: "EpisodeStore | None") -> float:
    """Size of the dataset that is still to be recorded."""
    return 0 if store else DEFAULT_TASKS * DEFAULT_EPISODES * EPISODE_ROWS * ROW_BYTES


def _rows(store: "EpisodeStore", episodes: Iterable[int]) -> int:
    return sum(store.info(episode).length for episode in episodes)
