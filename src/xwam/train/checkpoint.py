"""A run's folder: its configuration, its log and its checkpoints.

run/config.json                      the resolved configuration, written once
run/log.jsonl                        one line a step and one a validation
run/checkpoints/step_00001000/       after 1000 updates; appears whole or not at all
    model.safetensors                weights
    ema.safetensors                  the same tensors with their moving averages: what one deploys; not in every run
    optimizer.safetensors            moments, named <parameter>.<moment>
    state.json                       step, steps that were skipped, and the log's size in bytes at that step

Ranks that share the weights write a file each instead of the one, as `xwam.train.pieces` says.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from torch import Tensor, nn

from xwam.core.config import Frozen
from xwam.train import parallel
from xwam.train.optimizers import AdamW
from xwam.train.pieces import Piece, names_in, own_pieces, read_into, write

Config = BaseModel | Mapping[str, Any]


def open_run(run: Path, config: Config, free: Collection[str] = ()) -> None:
    """Creates the run's folder, or refuses to go on with a run that another configuration began.

    Settings of training (at the top, or under `train`) that are `free` may differ; one that is younger than the run
    has its default there.
    """
    asked = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    path = run / "config.json"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    begun = latest(run) is not None or (run / "log.jsonl").exists()
    if not path.exists() or not begun:  # a start that was refused leaves its configuration, and no step
        part = path.with_suffix(".json.part")
        part.write_text(json.dumps(asked, indent=2) + "\n")
        sync(part)
        part.replace(path)
        return
    old, new = json.loads(path.read_text()), json.loads(json.dumps(asked))
    if isinstance(config, Frozen):
        with suppress(ValueError):  # what no longer parses is compared as it is
            old = type(config).parse(old).model_dump(mode="json")
    for settings in (old, new):
        for name in free:
            settings.pop(name, None)
            settings.get("train", {}).pop(name, None)
    changed = differences(old, new)
    if changed:
        raise ValueError(
            f"{run} was begun with another configuration; a resumed run must be the same run:\n  "
            + "\n  ".join(changed)
            + "\nGive the old values back, or begin a new run in another folder."
        )


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Lines that name each key whose value differs between two JSON values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{key}: {old!r} in the run, {new!r} now"]
    lines = []
    for name in sorted(old.keys() | new.keys()):
        inner = f"{key}.{name}" if key else name
        lines += differences(old.get(name, "absent"), new.get(name, "absent"), inner)
    return lines


def latest(run: Path) -> Path | None:
    """The run's newest checkpoint."""
    return max(_checkpoints(run), key=step_of, default=None)


def newest_step(run: Path) -> int:
    """The step of the run's newest checkpoint, 0 without one; every rank must ask.

    Rank 0 tells: a shared file system may show others an older list of the folder.
    """
    newest = latest(run) if parallel.rank() == 0 else None
    return int(parallel.summed(torch.tensor([step_of(newest) if newest else 0])))


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return run / "checkpoints" / f"step_{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Inverse of `folder_of`."""
    return int(checkpoint.name.removeprefix("step_"))


class Save:
    """A checkpoint that is being written while training goes on.

    Tensors are copied to the CPU at once, and a thread writes them. A folder of another name is filled, forced to the
    disk and, in `commit`, renamed, so that a crash at any moment leaves whole checkpoints only.
    """

    def __init__(self, run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], **state: int):
        self._run, self._step = run, step
        self._final = folder_of(run, step)
        self._part = self._final.with_suffix(".part")
        log = run / "log.jsonl"
        about = {"step": step, **state, "log_bytes": log.stat().st_size if log.exists() else 0}
        pieces = {stem: own_pieces(named) for stem, named in tensors.items()}
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._written = pool.submit(_write, self._part, pieces, about, log)
        pool.shutdown(wait=False)

    @property
    def written(self) -> bool:
        """Whether this rank is done."""
        return self._written.done()

    def wait(self) -> None:
        """Returns when this rank is done; raises OSError, and no rank may commit, if it failed."""
        try:
            self._written.result()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(self._part, ignore_errors=True)
            raise OSError(_failure(self._run, self._step, error)) from error

    def commit(self, keep: int) -> Path:
        """Makes it a checkpoint, once all ranks are done; keeps the newest `keep`. Only rank 0 calls this."""
        sync(self._part)
        self._part.rename(self._final)
        sync(self._final.parent)
        for old in sorted(_checkpoints(self._run), key=step_of)[:-keep]:
            old.rename(old.with_suffix(".part"))
        clear(self._run)
        return self._final


def save(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], keep: int = 2, **state: int) -> Path:
    """Writes `tensors` (file stem -> name -> tensor) as the checkpoint of `step` of a single rank."""
    saving = Save(run, step, tensors, **state)
    saving.wait()
    return saving.commit(keep)


def clear(run: Path) -> None:
    """Removes what saves that were killed have left."""
    for stale in (run / "checkpoints").glob("*.part"):
        shutil.rmtree(stale)


def read_state(checkpoint: Path) -> dict[str, int]:
    """`step`, `log_bytes` and what else `Save` was given of a checkpoint."""
    return json.loads((checkpoint / "state.json").read_text())


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads model.safetensors or ema.safetensors into `model`, sharded or not."""
    read_into(path, model.state_dict())


def averaged(checkpoint: Path) -> Path:
    """The file of what one deploys: averages of the weights, or the weights themselves in a run that keeps none."""
    return checkpoint / ("ema.safetensors" if any(checkpoint.glob("ema*")) else "model.safetensors")


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, flat; parameters that never had a gradient have none."""
    return {
        f"{name}.{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


@torch.no_grad()
def load_optimizer(model: nn.Module, optimizer: AdamW, path: Path) -> None:
    """Inverse of `optimizer_tensors`; the learning rate is the trainer's and is not part of it."""
    found = names_in(path)
    for name, parameter in model.named_parameters():
        if f"{name}.step" in found:
            optimizer.state[parameter] = optimizer.new_state(parameter)
    tensors = optimizer_tensors(model, optimizer)
    there, ours = ({name.rpartition(".")[2] for name in names} for names in (found, tensors))
    if there != ours:
        raise ValueError(f"{path} holds {sorted(there)}, another optimizer's state: give the train.optimizer of before")
    read_into(path, tensors)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(folder: Path, pieces: Mapping[str, Mapping[str, Piece]], state: Mapping[str, int], log: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    first = parallel.rank() == 0
    written = [write(folder / f"{stem}.safetensors", named) for stem, named in pieces.items() if named or first]
    if first:
        (folder / "state.json").write_text(json.dumps(state) + "\n")
        written += [folder / "state.json", *([log] if log.exists() else [])]
    for path in written:
        sync(path)


def _failure(run: Path, step: int, error: Exception) -> str:
    before = latest(run)
    intact = f"{before} is intact" if before else "there is no older checkpoint"
    free_mb = shutil.disk_usage(run).free / 1e6
    return (
        f"could not save step {step} ({error}); {intact}. The disk has {free_mb:.0f} MB free: "
        "make room and start the same command again to resume."
    )


def _checkpoints(run: Path) -> list[Path]:
    return [path for path in (run / "checkpoints").glob("step_*") if path.suffix != ".part"]
