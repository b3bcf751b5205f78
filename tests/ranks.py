"""What each rank does in the tests of training with many; `torchrun ranks.py JOB...` starts them.

A job is the JSON of arguments of `do`; ranks do the jobs one after the other. Batches have unequal counts of valid
elements in each rank's part, and depth in the first half of the samples alone, in one step in none.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from tiny_model import tiny_model
from xwam.core.streams import Batch, Streams
from xwam.data.clips import ClipId
from xwam.flow.levels import Fixed
from xwam.train import checkpoint, optimizers, parallel, pieces
from xwam.train.trainer import UNFINISHED, TrainConfig, Trainer
from xwam.wam import WorldActionModel

SAMPLES = 4


def whole_batch(step: int) -> Batch:
    g = torch.Generator().manual_seed(step)
    video, depth = (torch.randn(SAMPLES, 8, 3, 3, 2, 2, generator=g) for _ in range(2))
    action, proprio = torch.randn(SAMPLES, 16, 4, generator=g), torch.randn(SAMPLES, 9, 4, generator=g)
    valid = [
        torch.rand(x.shape, generator=g) < torch.linspace(0.2, 1, SAMPLES)[:, None, None] for x in (action, proprio)
    ]
    depth_valid = (torch.arange(SAMPLES) < SAMPLES // 2)[:, None, None, None, None].expand(-1, *video.shape[2:])
    streams = Streams(video, action * valid[0], proprio * valid[1], depth)
    return Batch(streams, *valid, depth_valid, ("push", "pull it", "", "open the drawer"))


class Parts:
    """The part of each batch that is this rank's; `before(step)` is called first. If uneven, rank 0 has 3 of 4."""

    def __init__(self, before=lambda step: None, uneven: bool = False):
        self.before, ranks, rank = before, parallel.ranks(), parallel.rank()
        equal = slice(rank * SAMPLES // ranks, (rank + 1) * SAMPLES // ranks)
        self.part = slice(3 * rank, 3 + rank) if uneven else equal

    def train(self, step: int) -> Batch:
        self.before(step)
        return self._part(step)

    def validation(self) -> Iterator[Batch]:
        return (self._part(1000 + index) for index in range(2))

    def ids(self, step: int) -> list[ClipId]:
        return [ClipId("ranks", "toy", step, row) for row in range(SAMPLES)]

    def _part(self, step: int) -> Batch:
        part = whole_batch(step)[self.part]
        known = bool(part.depth_valid.any()) and step != 1
        return part if known else replace(part, streams=replace(part.streams, depth=None))


def settings(**changes) -> TrainConfig:
    brief = {"steps": 4, "warmup_steps": 1, "validate_every": 2, "save_every": 2, "precision": "fp32"}
    return TrainConfig(**{**brief, "threads": 1, "device": "cpu", "learning_rate": 1e-2, **changes})


class Samples:
    """What the averaged weights imagine of two clips, in some numbers: every rank samples, from sharded weights."""

    methods = ("loss", "sample")

    def __init__(self, model: WorldActionModel):
        self.model = model

    def __call__(self, step: int) -> dict:
        batch = whole_batch(1000)[:2].to(self.model.device)
        sampled = self.model.sample(batch, [1, 2], world=True)
        means = {name: getattr(sampled, name).abs().mean().item() for name in ("video", "action", "depth")}
        return {"sampled": means | {"loss": self.model.loss(batch, [1, 2], law=Fixed(0.5))["total"].item()}}


def trainer_of(
    run: Path, before=lambda step: None, uneven: bool = False, unallocated: bool = False, **changes
) -> Trainer:
    """If `unallocated`, only rank 0 makes weights, and it makes none that a checkpoint holds."""
    saved = checkpoint.newest_step(run) > 0
    with parallel.unallocated(saved) if unallocated else nullcontext():
        model = tiny_model(text_dropout=0.3)
    empty = unallocated and (saved or parallel.rank() > 0)
    assert all(parameter.is_meta == empty for parameter in model.parameters())
    return Trainer(model, Parts(before, uneven), settings(**changes), run, examination=Samples(model))


def stopped_at(stop: int | None):
    """Rank 0, and no other, is asked to stop when it prepares the batch of this step."""

    def before(step: int) -> None:
        if step == stop and parallel.rank() == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    return before


def die_while_saving(step: int) -> None:
    """Rank 1 is killed when it has written a part of the checkpoint of `step`."""
    write = checkpoint.write

    def deadly(path: Path, named: dict[str, pieces.Piece]) -> Path:
        written = write(path, named)
        if parallel.rank() == 1 and path.parent.name == f"step_{step:08d}.part" and path.stem == "ema":
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    checkpoint.write = deadly


def do(
    run: str, stop: int | None = None, die: int | None = None, pause_s: float = 0.0, block: int = 256, **changes
) -> bool:
    optimizers.BLOCK = block
    if die is not None:
        die_while_saving(die)
    before = (lambda step: time.sleep(pause_s)) if pause_s else stopped_at(stop)
    return trainer_of(Path(run), before, **changes).fit()


if __name__ == "__main__":
    finished = [do(**json.loads(job)) for job in sys.argv[1:]]
    sys.exit(0 if all(finished) else UNFINISHED)
