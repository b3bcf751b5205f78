"""A run's folder: its configuration, its log and its checkpoints.

run/config.json                      the resolved configuration, written once
run/log.jsonl                        one line a step and one a validation
run/checkpoints/step_00001000/       after 1000 updates; appears whole or not at all
    model.safetensors                weights
    ema.safetensors                  the same tensors with their moving averages: what one deploys
    optimizer.safetensors            moments, named <parameter>.<moment>
    state.json                       step, and the log's size in bytes at that step
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Config = BaseModel | Mapping[str, Any]


def open_run(run: Path, config: Config) -> None:
    """Creates the run's folder, or refuses to go on with a run that another configuration began."""
    asked = config.model_dump(mode="json") if isinstance(config, BaseModel) else dict(config)
    path = run / "config.json"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    if not path.exists():
        part = path.with_suffix(".json.part")
        part.write_text(json.dumps(asked, indent=2) + "\n")
        sync(part)
        part.replace(path)
        return
    changed = differences(json.loads(path.read_text()), json.loads(json.dumps(asked)))
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
    return max(_checkpoints(run), key=_step, default=None)


def save(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], keep: int = 2) -> Path:
    """Writes `tensors` (file stem -> name -> tensor) as the checkpoint of `step`; keeps the newest `keep`.

    A folder of another name is filled, forced to the disk and then renamed, so that a crash at any moment
    leaves whole checkpoints only.
    """
    final = run / "checkpoints" / f"step_{step:08d}"
    if final.exists():
        return final
    for stale in final.parent.glob("*.part"):
        shutil.rmtree(stale)
    part = final.with_suffix(".part")
    part.mkdir(parents=True)
    try:
        _write(part, step, tensors, run / "log.jsonl")
        part.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(_failure(run, step, error)) from error
    sync(final.parent)
    for old in sorted(_checkpoints(run), key=_step)[:-keep]:
        shutil.rmtree(old.rename(old.with_suffix(".part")))
    return final


def read_state(checkpoint: Path) -> dict[str, int]:
    """`step` and `log_bytes` of a checkpoint."""
    return json.loads((checkpoint / "state.json").read_text())


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file, on the CPU; raises unless names and shapes are those of `expected`."""
    found = _read(path)
    _check(path, found, expected)
    return found


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads model.safetensors or ema.safetensors into `model`."""
    model.load_state_dict(read_tensors(path, model.state_dict()))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, flat; parameters that never had a gradient have none."""
    return {
        f"{name}.{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


@torch.no_grad()
def load_optimizer(model: nn.Module, optimizer: torch.optim.AdamW, path: Path) -> None:
    """Inverse of `optimizer_tensors`, for AdamW; the learning rate is the trainer's and is not part of it."""
    found = _read(path)
    for name, parameter in model.named_parameters():
        if f"{name}.step" in found:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
    state = optimizer_tensors(model, optimizer)
    _check(path, found, state)
    for name, value in found.items():
        state[name].copy_(value)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], log: Path) -> None:
    for stem, named in tensors.items():
        # convolution weights may be channels-last in memory; the file holds the plain order
        save_file({name: x.detach().contiguous() for name, x in named.items()}, folder / f"{stem}.safetensors")
    if log.exists():
        sync(log)
    log_bytes = log.stat().st_size if log.exists() else 0
    (folder / "state.json").write_text(json.dumps({"step": step, "log_bytes": log_bytes}) + "\n")
    for path in (*folder.iterdir(), folder):
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


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise ValueError(f"no file {path}: name a file like RUN/checkpoints/step_00001000/ema.safetensors")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): delete its folder to go on from the one before") from error


def _check(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises with one line a kind of fault, each with the first few names."""
    faults = {
        "missing from the file": [name for name in expected if name not in found],
        "unknown to the model": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} ({tuple(found[name].shape)} in the file, {tuple(x.shape)} in the model)"
            for name, x in expected.items()
            if name in found and found[name].shape != x.shape
        ],
    }
    lines = [
        f"{len(names)} {fault}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for fault, names in faults.items()
        if names
    ]
    if lines:
        raise ValueError(
            f"{path} does not fit this model:\n  " + "\n  ".join(lines) + "\n"
            "It looks like a checkpoint of another model: build the model from the config.json of the same run."
        )
