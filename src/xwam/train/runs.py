"""Whole runs: from a dataset folder to exported weights, for the autoencoder and for the model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import nn

from xwam.core.config import Frozen
from xwam.core.embodiment import Embodiment
from xwam.core.files import read_json, write_atomically, write_json
from xwam.data.batches import ClipBatches
from xwam.data.clips import split
from xwam.data.episodes import EpisodeStore
from xwam.data.latents import LatentClips, folder_of
from xwam.data.mixture import Mixture
from xwam.data.processes import in_processes
from xwam.data.sampling import check_ranks
from xwam.data.snippets import SnippetBatches, films_of
from xwam.data.statistics import fit_embodiment
from xwam.data.transforms import ClipTransform
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.config import TransformerConfig
from xwam.model.lora import LoraConfig, add_lora
from xwam.model.precision import precision_of
from xwam.model.wan import UMT5TextEncoderConfig
from xwam.saved import ModelConfig
from xwam.train import checkpoint, parallel
from xwam.train.closed_loop import ClosedLoop, ClosedLoopConfig, Command, evaluation_command
from xwam.train.encoding import (
    EXPORTED_AUTOENCODER,
    EncodingJob,
    TextSource,
    encode_ahead,
    idle_cores,
    latent_settings,
    load_autoencoder,
    stored_text,
)
from xwam.train.export import Exporter
from xwam.train.start import begin, check_base, fill_autoencoder, fill_model, with_earlier
from xwam.train.trainer import TrainConfig, Trainer
from xwam.train.validation import ModelExamination, ValidationConfig
from xwam.wam import WorldActionModel

STATISTICS_BATCHES = 16
PROVENANCE = "provenance.json"


class DataConfig(Frozen):
    """Which episodes: of each environment, `held_out` are kept from training and serve validation.

    `weight` is the dataset's share in a mixture, relative to the others'.
    """

    dataset: str
    held_out: int = 5
    seed: int = 0
    weight: float = 1.0


class AutoencoderRun(Frozen):
    """Everything that makes a small autoencoder.

    Snippets are `frames` video frames, `stride` rows apart, of films at `image_size`, height and width. With
    `start_from`, an exported autoencoder or model, it begins with those weights.
    """

    data: DataConfig
    embodiment: Embodiment
    autoencoder: SmallAutoencoderConfig
    train: TrainConfig
    frames: int = 9
    stride: int = 2
    batch_size: int = 6
    episodes_per_environment: int = 24
    image_size: tuple[int, int] = (128, 128)
    start_from: str | None = None

    def train_in(self, folder: Path) -> Path | None:
        """Trains, or resumes, and exports the averaged weights; None if it was stopped before the end."""
        store = EpisodeStore(self.data.dataset)
        training, held_out = split(store, self.data.held_out, self.data.seed)
        chosen = thinned(store, training, self.episodes_per_environment)
        films = [films_of(store, self.embodiment, episodes, self.image_size) for episodes in (chosen, held_out)]
        shape = (self.frames, self.stride, self.batch_size)
        batches = SnippetBatches(*films, *shape, self.train.seed, rank=parallel.rank(), ranks=parallel.ranks())
        torch.manual_seed(self.train.seed)
        model = SmallAutoencoder(self.autoencoder).to(memory_format=torch.channels_last)
        begin(folder, self.start_from, partial(fill_autoencoder, model))
        trainer = Trainer(model, batches, self.train, folder, self)
        if not trainer.fit():
            return None
        if parallel.rank() == 0:
            self._export(replace(batches, rank=0, ranks=1), folder, trainer.device)
        parallel.wait_for_all()
        return folder / EXPORTED_AUTOENCODER

    def _export(self, batches: SnippetBatches, folder: Path, device: torch.device) -> None:
        """Writes the averaged weights of the finished run, with the statistics of its latents."""
        model = SmallAutoencoder(self.autoencoder).to(device, memory_format=torch.channels_last)
        checkpoint.load_weights(model, checkpoint.averaged(checkpoint.latest(folder)))
        samples = torch.cat([batches.train(step) for step in range(STATISTICS_BATCHES)])
        model.fit_latent_statistics(samples.to(device).float() / 127.5 - 1)
        weights = {name: x.contiguous() for name, x in model.state_dict().items()}
        write_atomically(folder / EXPORTED_AUTOENCODER, lambda path: save_file(weights, path))


def thinned(store: EpisodeStore, episodes: Sequence[int], per_environment: int) -> list[int]:
    """The first `per_environment` of the episodes of each environment: as many as fit into memory as films."""
    kept: dict[str, list[int]] = {}
    for episode in episodes:
        kept.setdefault(store.info(episode).environment, []).append(episode)
    return [episode for group in kept.values() for episode in group[:per_environment]]


class TrainingData(NamedTuple):
    """A dataset as a run sees it; `trained_on` are environment and seed of its training episodes."""

    robot: Embodiment
    training: LatentClips
    held_out: LatentClips
    trained_on: tuple[tuple[str, int | None], ...]


def widened(robot: Embodiment, network: TransformerConfig) -> Embodiment:
    """The same robot for this network; raises if it does not fit."""
    if network.acts:
        robot = robot.widened(network.proprio_width, network.action_width)
    if robot.actions_per_frame != network.actions_per_frame or len(robot.cameras) > network.views:
        has = f"{len(robot.cameras)} cameras and {robot.actions_per_frame} actions a frame"
        needs = f"at most {network.views} and exactly {network.actions_per_frame}"
        raise ValueError(f"{robot.name!r} has {has}, the network {needs}: edit its meta/embodiment.yaml")
    return robot


class ModelRun(Frozen):
    """Everything that makes a world action model; clips start `start_stride` rows apart.

    `latents` is the folder of what is encoded ahead, beside the autoencoder if not given. Of each clip so many
    `versions` are encoded, and shown in turns: the first as the model will see it in use, others cropped at random, by
    the model's `crop_ratio`, and recoloured by `colour_jitter` (of brightness, contrast, saturation and hue). UMT5 is
    not trained: its weights, `text_encoder`, and the folder of its `tokenizer` are needed to encode the instructions,
    and to export.
    `mixed_in` are further datasets, each with the robot that its own meta/embodiment.yaml tells of and with statistics
    of its own; the model is exported for the robot of `data`. With `start_from`, the folder of an exported model of
    the same sizes, training begins with its weights, those of its small text encoder too; of a video prior, ours or
    Wan2.2's, it grows to a world action model. With `lora` those weights stay, and small matrices beside them learn.
    A network without actions, `action_width` 0, learns a video prior.
    """

    data: DataConfig
    mixed_in: tuple[DataConfig, ...] = ()
    autoencoder: str
    model: ModelConfig
    train: TrainConfig
    start_stride: int = 2
    batch_size: int = 64
    export_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    latents: str | None = None
    latents_dtype: Literal["float16", "bfloat16"] = "float16"
    versions: int = Field(1, ge=1)
    colour_jitter: tuple[float, float, float, float] = (0.2, 0.2, 0.2, 0.05)
    text_encoder: str | None = None
    tokenizer: str | None = None
    start_from: str | None = None
    lora: LoraConfig | None = None
    validation: ValidationConfig = ValidationConfig()
    closed_loop: ClosedLoopConfig = ClosedLoopConfig()

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if self.lora is not None and self.start_from is None:
            raise ValueError("lora adapts a model: give the folder of an exported one as start_from")
        return self

    @model_validator(mode="after")
    def _evaluates_checkpoints(self) -> Self:
        self.closed_loop.check(self.train.save_every)
        if self.closed_loop.every and not self.model.transformer.acts:
            raise ValueError("closed_loop.every is given, but a video prior has no actions: set it to 0")
        return self

    def train_in(self, folder: Path, evaluation: Command = evaluation_command) -> Path | None:
        """Encodes the clips where needed, trains, or resumes, and exports; None if it was stopped before the end."""
        job, autoencoder = self.encoding_job(), load_autoencoder(Path(self.autoencoder), self.model.autoencoder)
        datasets = [part.dataset(autoencoder) for part in self.parts()]
        run = self.model_copy(update={"model": self.model.model_copy(update={"embodiment": datasets[0].robot})})
        torch.manual_seed(self.train.seed)
        text, frozen = stored_text(job), self.lora is not None
        resumed = checkpoint.newest_step(folder) > 0
        with nullcontext() if frozen else parallel.unallocated(from_files=resumed):
            model = WorldActionModel(run.model, text_encoder=text)
        model.autoencoder = autoencoder.requires_grad_(False)
        fill = partial(begin, folder, self.start_from, partial(fill_model, model), frozen)
        if frozen:
            fill()  # before adapters part the names of weights, and change their type
            check_base(Path(self.start_from), self.model.transformer, autoencoder)
            precision = precision_of(self.train.precision, parallel.device_of(self.train.device))
            add_lora(model, self.lora, torch.bfloat16 if precision == "bf16" else None)
        batches = self._batches(datasets)
        examination = ModelExamination(model, datasets[0].held_out, self.validation, folder, self.train.seed)
        background = run._closed_loop(folder, datasets[0], evaluation)
        watchers = {"examination": examination, "background": background}
        begun = {"only_trained": frozen, "fill": None if frozen else fill}
        trainer = Trainer(model, batches, self.train, folder, run, **begun, **watchers)
        if parallel.rank() == 0:
            trained_on = [episode for dataset in datasets for episode in dataset.trained_on]
            account = {"recipe": run.model_dump(mode="json", exclude={"model"}), "trained_on": trained_on}
            write_json(folder / PROVENANCE, with_earlier(folder, account))
        if not trainer.fit():  # each step descends model.loss(batch, seeds)
            return None
        if parallel.rank() == 0:
            run.export(folder, folder / "export")
        parallel.wait_for_all()
        return folder / "export"

    def export(
        self,
        folder: Path,
        out: Path,
        step: int | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        merge: bool = False,
        frozen: Literal["auto", "inside", "reference"] = "auto",
    ) -> None:
        """Writes the averaged weights of the run in `folder`, its newest or those of `step`, to a folder that acts.

        `merge` adds an adapter into its base; without it the adapter is alone. Of `frozen` parts, the autoencoder of
        Wan2.2 and UMT5, "auto" refers to large ones. Raises ValueError if there is no such checkpoint.
        """
        found = checkpoint.latest(folder) if step is None else checkpoint.folder_of(folder, step)
        if found is None or not found.is_dir():
            there = sorted(checkpoint.step_of(path) for path in (folder / "checkpoints").glob("step_*[0-9]"))
            raise ValueError(f"{folder} has no checkpoint of step {step}: there are {there}")
        if not (folder / PROVENANCE).is_file():
            raise ValueError(f"{folder} does not say what it was trained on: start it again, it goes on where it is")
        self._export(folder, found, out, dtype, merge, frozen)

    def _export(
        self,
        folder: Path,
        found: Path,
        out: Path,
        dtype: Literal["float32", "bfloat16", "float16"] | None = None,
        merge: bool = False,
        frozen: Literal["auto", "inside", "reference"] = "auto",
    ) -> None:
        """`export` of what `found` holds of a checkpoint of this name, wherever it is."""
        kind, job = getattr(torch, dtype or self.export_dtype), self.encoding_job()
        provenance = read_json(folder / PROVENANCE) | {"step": checkpoint.step_of(found)}
        exporter = Exporter(self.model, Path(job.autoencoder), job.text, provenance, kind, frozen)
        if self.lora is not None:
            exporter.adapter(found, out, self.lora, Path(self.start_from), merge)
        elif merge:
            raise ValueError(f"{folder} trained no adapter: leave merge away")
        else:
            exporter.whole(found, out)

    def _closed_loop(self, folder: Path, dataset: TrainingData, evaluation: Command) -> ClosedLoop | None:
        """Evaluation beside training, if it is asked for: of the dataset's tasks unless others are named."""
        config = self.closed_loop
        if not config.every:
            return None
        tasks = config.tasks or tuple(dict.fromkeys(environment for environment, _ in dataset.trained_on))
        config = config.model_copy(update={"tasks": tasks})
        return ClosedLoop(folder, config, partial(self._export, folder), evaluation)

    def parts(self) -> list[Self]:
        """A run for each of its datasets alone; the further ones' robots take the widths of the network."""
        network, parts = self.model.transformer, [self.model_copy(update={"mixed_in": ()})]
        for data in self.mixed_in:
            robot = EpisodeStore(data.dataset).embodiment()
            if robot is None:
                raise ValueError(f"{data.dataset} has no meta/embodiment.yaml: `xwam import` drafts it")
            model = self.model.model_copy(update={"embodiment": widened(robot, network)})
            parts.append(self.model_copy(update={"data": data, "mixed_in": (), "model": model, "latents": None}))
        return parts

    def dataset(self, autoencoder: nn.Module) -> TrainingData:
        """The clips of `data`, encoded where needed, and its robot with the statistics of what is trained on."""
        jobs = self.encoding_jobs()
        for job in jobs:
            encode_ahead(job, in_processes(idle_cores()), wait=True)
        store = EpisodeStore(self.data.dataset)
        training, held_out = split(store, self.data.held_out, self.data.seed)
        robot = fit_embodiment(store, self.model.embodiment, training)
        made = (Path(jobs[0].folder), store, robot, latent_settings(jobs[0], autoencoder))
        seen = LatentClips(*made, training, len(jobs)), LatentClips(*made, held_out)
        infos = [store.info(episode) for episode in training]
        return TrainingData(robot, *seen, tuple((info.environment, info.seed) for info in infos))

    def _batches(self, datasets: Sequence[TrainingData]) -> ClipBatches | Mixture:
        """Batches of the one dataset, or of several by weight; of each a rank has its share."""
        place = {"rank": parallel.rank(), "ranks": parallel.ranks()}
        if len(datasets) == 1:
            clips = (datasets[0].training, datasets[0].held_out)
            return ClipBatches(*clips, batch_size=self.batch_size, seed=self.train.seed, **place)
        check_ranks(self.batch_size, **place)
        parts = [
            ClipBatches(one.training, one.held_out, batch_size=self.batch_size // parallel.ranks(), seed=seed)
            for seed, one in enumerate(datasets, start=self.train.seed)
        ]
        weights = [data.weight for data in (self.data, *self.mixed_in)]
        return Mixture(parts, weights, seed=self.train.seed, **place)

    def encoding_jobs(self, shard_episodes: int | None = None, verify: bool = False) -> list[EncodingJob]:
        """What encoding each version of its dataset takes."""
        plain = self.encoding_job(shard_episodes, verify)
        folders = {version: str(folder_of(Path(plain.folder), version)) for version in range(1, self.versions)}
        changes = ({"version": version, "folder": folder, "text": None} for version, folder in folders.items())
        return [plain, *(plain.model_copy(update=change) for change in changes)]

    def encoding_job(self, shard_episodes: int | None = None, verify: bool = False) -> EncodingJob:
        """What encoding its dataset takes, as the model will see it."""
        model, text = self.model, None
        if isinstance(model.text, UMT5TextEncoderConfig):
            if self.text_encoder is None or self.tokenizer is None:
                raise ValueError("UMT5 is not trained: give its weights as `text_encoder` and its folder `tokenizer`")
            places = {"weights": self.text_encoder, "tokenizer": self.tokenizer}
            text = TextSource(
                config=model.text, **{name: str(Path(place).absolute()) for name, place in places.items()}
            )
        codec, dataset = Path(self.autoencoder).absolute(), Path(self.data.dataset).absolute()
        beside = (codec if codec.is_dir() else codec.parent) / "latents" / dataset.name
        return EncodingJob(
            dataset=str(dataset),
            folder=str(Path(self.latents).absolute() if self.latents else beside),
            autoencoder=str(codec),
            codec=model.autoencoder,
            text=text,
            embodiment=model.embodiment,
            transform=ClipTransform(
                size=model.image_size, crop_ratio=model.crop_ratio, colour_jitter=self.colour_jitter
            ),
            frames=model.frames,
            start_stride=self.start_stride,
            precision=self.train.precision,
            dtype=self.latents_dtype,
            device=self.train.device,
            shard_episodes=shard_episodes,
            verify=verify,
        )


def run_of(folder: Path) -> ModelRun:
    """The run that a folder holds, with the robot's statistics."""
    if not (folder / "config.json").is_file() or not (folder / "checkpoints").is_dir():
        raise ValueError(f"{folder} is no run's folder: name one that `xwam train` made")
    return ModelRun.parse(read_json(folder / "config.json"))
