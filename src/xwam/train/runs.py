"""Whole runs: from a dataset folder to exported weights, for the autoencoder and for the model."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from xwam.core.config import Frozen
from xwam.core.embodiment import Embodiment
from xwam.data.clips import split
from xwam.data.episodes import EpisodeStore
from xwam.data.snippets import SnippetBatches
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.train.trainer import TrainConfig, Trainer

EXPORTED_AUTOENCODER = "autoencoder.safetensors"
STATISTICS_BATCHES = 16


class DataConfig(Frozen):
    """Which episodes: of each environment, `held_out` are kept from training and serve validation."""

    dataset: str
    held_out: int = 5
    seed: int = 0


class AutoencoderRun(Frozen):
    """Everything that makes a small autoencoder; snippets are `frames` video frames, `stride` rows apart."""

    data: DataConfig
    embodiment: Embodiment
    autoencoder: SmallAutoencoderConfig
    train: TrainConfig
    frames: int = 9
    stride: int = 2
    batch_size: int = 6


def train_autoencoder(run: AutoencoderRun, folder: Path) -> Path | None:
    """Trains, or resumes, and exports the averaged weights; None if it was stopped before the end."""
    store = EpisodeStore(run.data.dataset)
    training, held_out = split(store, run.data.held_out, run.data.seed)
    batches = SnippetBatches(
        Path(run.data.dataset), run.embodiment, training, held_out,
        frames=run.frames, stride=run.stride, batch_size=run.batch_size, seed=run.train.seed,
    )  # fmt: skip
    torch.manual_seed(run.train.seed)
    model = SmallAutoencoder(run.autoencoder).to(memory_format=torch.channels_last)
    trainer = Trainer(model, batches, run.train, folder, run)
    if not trainer.fit():
        return None
    with trainer.ema.applied():
        samples = torch.cat([batches.train(step) for step in range(STATISTICS_BATCHES)])
        model.fit_latent_statistics(samples.to(trainer.device).float() / 127.5 - 1)
        return _export(model, folder)


def load_autoencoder(folder: Path, config: SmallAutoencoderConfig) -> SmallAutoencoder:
    """The autoencoder that a finished run exported."""
    path = folder / EXPORTED_AUTOENCODER
    if not path.is_file():
        raise ValueError(f"{path} does not exist: finish `xwam train nano-autoencoder --run {folder}` first")
    autoencoder = SmallAutoencoder(config)
    autoencoder.load_state_dict(load_file(path))
    return autoencoder.eval()


def _export(model: SmallAutoencoder, folder: Path) -> Path:
    path, temporary = folder / EXPORTED_AUTOENCODER, folder / (EXPORTED_AUTOENCODER + ".tmp")
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, temporary)
    temporary.rename(path)
    return path
