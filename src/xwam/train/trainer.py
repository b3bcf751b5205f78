"""The one training loop, for the video autoencoder and the world action model alike.

Everything random is a function of the step and of a sample's place in the batch, so a run that was stopped and resumed
is the run that was not, and many ranks train as one does.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from xwam.core.config import Frozen
from xwam.model.precision import Precision, float32_products, precision_of
from xwam.train import checkpoint, parallel
from xwam.train.ema import Ema
from xwam.train.loading import loaders_for, prefetched
from xwam.train.memory import keep_freed_memory
from xwam.train.optimizers import OPTIMIZERS
from xwam.train.progress import Show, progress, stop_requests
from xwam.train.protocols import Background, Batches, Examination, Trainable
from xwam.train.schedule import learning_rate_at, seeds_at
from xwam.train.tracking import LOG, Log, TrackerName

# What a process that was stopped leaves with: EX_TEMPFAIL of sysexits.h, the same command goes on where it stopped.
UNFINISHED = 75
# A message names so many samples; the log names them all.
NAMED_SAMPLES = 4


class TrainConfig(Frozen):
    """How to train. Steps are updates of the weights; `ema_decay` is reached after a short ramp.

    A step whose loss or gradient is not finite is skipped; after `max_skipped_in_a_row`, or `max_skipped` in the whole
    run, the run ends and keeps its last checkpoint. The newest `keep` checkpoints stay.

    With more than one process, `parallel` is ddp, where each rank holds all weights, or fsdp, where the ranks of a
    node, or `shards` of them, hold one copy; auto takes what the size of the model asks for. Each rank takes its part
    of a batch in `accumulate` parts, one after the other. `checkpoint_blocks` computes the inside of each block twice
    and need not keep it; `compile_blocks` takes minutes at first and is faster then. `xwam.train.optimizers` tells the
    three `optimizer`s; averages may be `ema_on_host`, and there are none if `ema_decay` is 0. So many `loaders` are
    processes that make batches; without them a thread does, which is what a CPU gets unless told otherwise.
    """

    steps: int = Field(gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(100, ge=0)
    final_lr_ratio: float = Field(0.05, ge=0, le=1)
    lr_decay_share: float = Field(0.2, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    precision: Precision = "auto"
    validate_every: int = Field(500, gt=0)
    save_every: int = Field(500, gt=0)
    max_skipped_in_a_row: int = Field(5, ge=0)
    max_skipped: int = Field(50, ge=0)
    seed: int = Field(0, ge=0)
    # Where and how it is computed, which changes rounding at most: these may differ when a run is resumed.
    MACHINE: ClassVar = frozenset(
        {"parallel", "shards", "accumulate", "checkpoint_blocks", "compile_blocks", "optimizer", "ema_on_host"}
        | {"keep", "threads", "loaders", "device"}
    )
    # What is shown and measured of it, which changes nothing of it: these may differ, too.
    WATCHING: ClassVar = frozenset({"trackers", "validation", "closed_loop"})
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    shards: int | None = Field(None, gt=0)
    accumulate: int = Field(1, gt=0)
    keep: int = Field(2, gt=0)
    checkpoint_blocks: bool = False
    compile_blocks: bool = False
    optimizer: Literal["adamw", "adamw8bit", "adamw_offload"] = "adamw"
    ema_on_host: bool = False
    threads: int | None = Field(None, gt=0)
    loaders: int | None = Field(None, ge=0)
    device: str = "auto"

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be less than steps {self.steps}: shorten it")
        return self

    def learning_rate_at(self, step: int) -> float:
        return learning_rate_at(
            step,
            schedule=self.schedule,
            peak=self.learning_rate,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            final_ratio=self.final_lr_ratio,
            decay_share=self.lr_decay_share,
        )


class Trainer:
    """One run in the folder `run`: begins it, or resumes it from its newest checkpoint, on any number of ranks.

    `resolved` is the whole configuration that rebuilds the model and its data; it is saved with the run,
    and a run is only resumed under the same one. On which machines it trains, and how it is watched, may change:
    `TrainConfig.MACHINE` and `TrainConfig.WATCHING`.
    With `only_trained`, checkpoints leave out what is frozen: whoever resumes gives the model those weights again.
    `fill` gives the model the weights to begin with once it lies on the ranks, so that none need hold them all.
    """

    def __init__(
        self,
        model: Trainable,
        batches: Batches,
        config: TrainConfig,
        run: Path | str,
        resolved: checkpoint.Config | None = None,
        only_trained: bool = False,
        fill: Callable[[], None] | None = None,
        examination: Examination | None = None,
        background: Background | None = None,
    ):
        self.run = Path(run)
        self.device = parallel.device_of(config.device)
        self.first = parallel.rank() == 0
        if self.first:
            free = config.MACHINE | config.WATCHING
            checkpoint.open_run(self.run, config if resolved is None else resolved, free)
            checkpoint.clear(self.run)
        parallel.wait_for_all()
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.set_float32_matmul_precision(float32_products(self.device))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        shards = parallel.columns(config.parallel, config.shards, trained)
        parallel.prepare_blocks(model, config.checkpoint_blocks, config.compile_blocks)
        self.precision = precision_of(config.precision, self.device)
        self.examination, self.background = examination, background if self.first else None
        methods = ("loss", *(examination.methods if examination else ()))
        parallel.shard(model, self.device, shards, self.precision, methods)
        if fill is not None:
            fill()
        self.model: nn.Module = model
        self.batches = batches
        self.config = config
        self.loaders = loaders_for(self.device) if config.loaders is None else config.loaders
        self.ema = Ema(self.model, config.ema_decay, config.ema_on_host)
        groups = parameter_groups(self.model, config.weight_decay)
        fused = {"fused": True} if config.optimizer == "adamw" and self.device.type in ("cpu", "cuda") else {}
        optimizer = OPTIMIZERS[config.optimizer]
        self.optimizer = optimizer(groups, lr=config.learning_rate, betas=config.betas, **fused)
        self.step = self.skipped = self.skipped_in_a_row = 0
        self._only_trained = only_trained
        self._saving: checkpoint.Save | None = None
        self._resume()

    def fit(self) -> bool:
        """Trains to the end (True) or until Ctrl-C or SIGTERM (False); saves in both cases."""
        try:
            return self._fit()
        finally:
            if parallel.ranks() == 1:  # many can only agree while all are well
                self.finish_save()
            if self._records is not None:
                self._records.close()

    def _fit(self) -> bool:
        config, began = self.config, time.perf_counter()
        self.model.train()
        with stop_requests() as stop, self._progress() as show:
            steps, pinned = range(self.step, config.steps), self.device.type == "cuda"
            for batch in prefetched(self.batches.train, steps, self.loaders, pinned):
                record = self._update(batch, began)
                last = self.step == config.steps
                show(record, *(parallel.ranks() * size for size in (len(batch), self.model.tokens(batch))))
                self._log_found()
                if last or self.step % config.validate_every == 0:
                    self._log_validation()
                stopping = self._agree(stop.is_set())
                if last or stopping or self.step % config.save_every == 0:
                    self.save()
                if last or stopping:
                    self.finish_save()
                if stopping and not last:
                    self._end_background(finished=False)
                    self._say(f"Stopped and saved after step {self.step}: start the same command again to resume.")
                    return False
                began = time.perf_counter()
        self._end_background(finished=True)
        return True

    @torch.no_grad()
    def validate(self) -> dict[str, dict[str, Any]]:
        """Of the averaged weights: mean losses over the validation batches, and what else is examined.

        Noise is the same at every step.
        """
        rows, examined = [], {}
        self.model.eval()
        with self.ema.applied():
            for index, batch in enumerate(self.batches.validation()):
                rows.append(self._losses(batch, "validation", index))
                if bad := _not_finite(rows[-1]):
                    where = f"validation batch {index} after step {self.step}"
                    raise FloatingPointError(f"{where}: {', '.join(bad)} not finite, which is not {self._refusal()}")
            if self.examination is not None:
                with self._autocast():
                    examined = self.examination(self.step)
        self.model.train()
        losses = {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}
        return {"validation": losses, **examined} if losses or examined else {}

    def save(self) -> None:
        """Begins a checkpoint of the present step; training may go on meanwhile."""
        self.finish_save()
        tensors = {
            "model": self._kept(self.model.state_dict()),
            **({"ema": self._kept(self.ema.tensors())} if self.ema.decay else {}),
            "optimizer": checkpoint.optimizer_tensors(self.model, self.optimizer),
        }
        skipped = {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}
        self._saving = checkpoint.Save(self.run, self.step, tensors, **skipped)

    def finish_save(self) -> None:
        """Returns when the checkpoint that was begun last is there."""
        if self._saving is not None:
            self._saving.wait()
            parallel.wait_for_all()
            self._commit()
            parallel.wait_for_all()

    def _agree(self, here: bool) -> bool:
        """Whether any rank says so; on the way makes a checkpoint of what all ranks have written."""
        writing = self._saving is not None and not self._saving.written
        voices, writers = parallel.summed(torch.tensor([here, writing], dtype=torch.int64)).tolist()
        if self._saving is not None and not writers:
            self.finish_save()
        return voices > 0

    def _commit(self) -> None:
        if self.first:
            saved = self._saving.commit(self.config.keep)
            if self.background is not None:
                self.background.begin(saved)
        self._saving = None

    def _update(self, batch: Any, began: float) -> dict[str, Any]:
        """One step of the optimizer; nothing moves if losses or gradient are not finite. Returns what is logged."""
        rate = self.config.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._losses(batch, "training", self.step)
        norm = parallel.whole(nn.utils.clip_grad_norm_(self.ema.weights, self.config.gradient_clip)).item()
        # known before the step, so that numbers that are not finite never reach the weights
        bad = _not_finite({**losses, "gradient norm": norm})
        if not bad:
            self.optimizer.step()
            self.ema.update(self.step)
        self.optimizer.zero_grad()
        self.step += 1
        samples = self.batches.ids(self.step - 1) if bad else []
        told = {"skipped": bad, "samples": [sample._asdict() for sample in samples]}
        record = {
            "step": self.step,
            **(told if bad else {"losses": losses, "gradient_norm": norm}),
            "learning_rate": rate,
            "seconds": time.perf_counter() - began,
        }
        self._log(record)
        self._count_skipped(bad, samples)
        return record

    def _count_skipped(self, bad: list[str], samples: Sequence[NamedTuple]) -> None:
        self.skipped += bool(bad)
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if bad else 0
        if not bad:
            return
        named, more = ", ".join(map(str, samples[:NAMED_SAMPLES])), len(samples) - NAMED_SAMPLES
        among = f"among {named}" + (f" and {more} more that {LOG} names" if more > 0 else "")
        self._say(f"Skipped step {self.step}: {', '.join(bad)} not finite, {among}.")
        if self.skipped_in_a_row > self.config.max_skipped_in_a_row or self.skipped > self.config.max_skipped:
            raise FloatingPointError(
                f"step {self.step}: {', '.join(bad)} not finite, {among}, as in {self.skipped_in_a_row} steps in a row "
                f"and {self.skipped} in all, more than is {self._refusal()}"
            )

    def _losses(self, batch: Any, purpose: Literal["training", "validation"], index: int) -> dict[str, float]:
        """Losses of the batch that all ranks hold together; in training their gradients are added up, too."""
        seeds = seeds_at(self.config.seed, purpose, index, parallel.places(len(batch)))
        counts = parallel.summed(self.model.counts(batch, seeds).cpu())
        rows, training = [], purpose == "training"
        for part, last in parts_of(len(batch), self.config.accumulate if training else 1):
            parallel.sum_between_copies(self.model, last)
            with self._autocast():
                losses = self.model.loss(batch[part].to(self.device, non_blocking=True), seeds[part], counts)
            if training:
                # gradients are averaged over ranks, and these losses are shares of a sum
                (parallel.ranks() * losses["total"]).backward()
            rows.append(torch.stack([x.detach().float() for x in losses.values()]))
        sums = parallel.summed(torch.stack(rows).sum(0).double().cpu())
        return dict(zip(losses, sums.tolist(), strict=True))

    def _autocast(self) -> AbstractContextManager:
        # a cast of each weight would stay until the end of the forward, when blocks are to keep nothing
        kept = not self.config.checkpoint_blocks
        return torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16", cache_enabled=kept)

    def _refusal(self) -> str:
        self.finish_save()
        good = checkpoint.latest(self.run) or "none yet"
        return f"allowed; the last good checkpoint is {good}. Lower learning_rate or look at these batches."

    def _resume(self) -> None:
        """Puts back the newest checkpoint and cuts the log to it."""
        step = checkpoint.newest_step(self.run)
        state = {"step": 0, "skipped": 0, "skipped_in_a_row": 0, "log_bytes": 0}
        if step:
            found = checkpoint.folder_of(self.run, step)
            state = checkpoint.read_state(found)
            checkpoint.read_into(found / "model.safetensors", self._kept(self.model.state_dict()))
            checkpoint.read_into(checkpoint.averaged(found), self._kept(self.ema.tensors()))
            checkpoint.load_optimizer(self.model, self.optimizer, found / "optimizer.safetensors")
            self._say(f"Resuming {self.run} after step {state['step']}.")
        self.step, self.skipped, self.skipped_in_a_row = (
            state[name] for name in ("step", "skipped", "skipped_in_a_row")
        )
        self._records = Log(self.run, self.config.trackers, state["log_bytes"]) if self.first else None

    def _kept(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of a model's complete state what its checkpoints hold."""
        return {name: tensors[name] for name in self.ema.names} if self._only_trained else tensors

    def _log_validation(self) -> None:
        if measured := self.validate():
            self._log({"step": self.step, **measured})

    def _log_found(self) -> None:
        for record in self.background.found() if self.background is not None else ():
            self._log(record)

    def _end_background(self, finished: bool) -> None:
        """Returns when nothing in the background is left to wait for; all ranks wait together."""
        busy = True
        while busy:
            busy = self._agree(self.background is not None and self.background.end(finished))
            self._log_found()

    def _log(self, record: dict[str, Any]) -> None:
        if self._records is not None:
            self._records.add(record)

    def _say(self, text: str) -> None:
        if self.first:
            print(text, flush=True)

    def _progress(self) -> AbstractContextManager[Show]:
        return progress(self.step, self.config.steps) if self.first else nullcontext(lambda *about: None)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decays the weights of linear and convolution layers; not biases, scales, embeddings and modulation tables.

    Tables are bare parameters under names of their own, while a layer's matrix is called "weight".
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = name.endswith("weight") and parameter.ndim >= 2 and id(parameter) not in embeddings
            (decayed if matrix else kept).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def parts_of(count: int, parts: int) -> list[tuple[slice, bool]]:
    """`count` samples in equal parts, each with whether it is the last."""
    if count % parts:
        raise ValueError(f"accumulate {parts} does not divide the {count} samples that each rank has of a batch")
    size = count // parts
    return [(slice(i * size, (i + 1) * size), i == parts - 1) for i in range(parts)]


def _not_finite(values: dict[str, float]) -> list[str]:
    return [name for name, value in values.items() if not math.isfinite(value)]
