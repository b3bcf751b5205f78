"""The run's log, and what is derived from it.

run/log.jsonl is the truth: a line a record, written at once. Trackers show the same records elsewhere:

    {"step": 7, "losses": {"video": 0.5}, "learning_rate": 0.001}   ->   losses/video 0.5, training/learning_rate 0.001

A tracker hears every record of the log when a run begins or resumes, and each new one; so it shows what the log holds
and no step twice. It never stops a run: one that fails is named once and left out from then on.
"""

import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.console import Console

from xwam.train.tensorboard import TensorBoard

LOG = "log.jsonl"
TrackerName = Literal["tensorboard", "wandb"]


class Tracker(Protocol):
    """Shows numbers by name, `group/name`, and pictures, PNG files; steps of a group never fall."""

    def log(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, Path]) -> None: ...

    def close(self) -> None: ...


class Log:
    """The log of the run in the folder `run`, cut to `size` bytes, and its trackers; rank 0 alone has one."""

    def __init__(self, run: Path, trackers: Sequence[TrackerName] = (), size: int | None = None):
        self._run, self._path = run, run / LOG
        if size is not None and self._path.exists() and self._path.stat().st_size > size:
            os.truncate(self._path, size)
        self._trackers: dict[str, Tracker] = {}
        for name in trackers:
            self._guarded(name, lambda: self._trackers.update({name: TRACKERS[name](run)}))  # noqa: B023
        for record in records_of(run) if self._trackers else ():
            self._tell(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Writes one record, which holds finite numbers only."""
        with open(self._path, "a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self._tell(record)

    def close(self) -> None:
        """Ends the trackers; the log has nothing to end."""
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, tracker.close)
        self._trackers.clear()

    def _tell(self, record: Mapping[str, Any]) -> None:
        pictures = {name: self._run / place for name, place in record.get("pictures", {}).items()}
        shown = {name: path for name, path in pictures.items() if path.exists()}
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, lambda: tracker.log(record["step"], numbers_of(record), shown))  # noqa: B023

    def _guarded(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # whatever a foreign package raises, the run is worth more
            self._trackers.pop(name, None)
            said = f"{name} shows nothing from now on ({error or type(error).__name__}); {self._path} goes on."
            Console(stderr=True).print(said, markup=False, style="yellow")


def records_of(run: Path) -> Iterator[dict[str, Any]]:
    """The records of a run, the first one first; half a line, which is being written, is left out."""
    path = run / LOG
    if not path.exists():
        return
    with open(path) as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a record but its step, as `group/name`; a skipped step counts 1 as training/skipped."""
    numbers = {"training/skipped": 1.0} if "skipped" in record else {}
    for key, value in record.items():
        if isinstance(value, Mapping) and key != "pictures":
            numbers |= {f"{key}/{name}": float(number) for name, number in value.items()}
        elif isinstance(value, int | float) and key != "step":
            numbers[f"training/{key}"] = float(value)
    return numbers


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Without what could not be measured, as the depth of a clip that has none."""
    return {name: float(number) for name, number in numbers.items() if math.isfinite(number)}


class WandB:
    """A run of Weights & Biases, resumed under the same id; every group of numbers has a step of its own.

    What the service has already is not sent again: it never forgets, and a resumed run repeats itself exactly. The
    project is xwam, or what the environment's WANDB_PROJECT says.
    """

    def __init__(self, run: Path):
        import wandb

        self._package = wandb
        path = run / "wandb_id"
        if not path.exists():
            path.write_text(secrets.token_hex(4))
        project = os.environ.get("WANDB_PROJECT", "xwam")
        config = json.loads((run / "config.json").read_text())
        about = {"project": project, "name": run.name, "id": path.read_text(), "dir": str(run), "config": config}
        self._run = wandb.init(**about, resume="allow")
        self._last: dict[str, int] = {}

    def log(self, step: int, numbers: Mapping[str, float], pictures: Mapping[str, Path]) -> None:
        images = {f"pictures/{name}": self._package.Image(str(path)) for name, path in pictures.items()}
        values = {**numbers, **images}
        sent = {}
        for group in sorted({name.split("/")[0] for name in values}):
            if step > self._known(group):
                sent |= {name: value for name, value in values.items() if name.split("/")[0] == group}
                sent[f"{group}/step"] = self._last[group] = step
        if sent:
            self._run.log(sent)

    def close(self) -> None:
        self._run.finish()

    def _known(self, group: str) -> int:
        """The last step of the group that the service has."""
        if group not in self._last:
            self._run.define_metric(f"{group}/step")
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
            self._last[group] = self._run.summary.get(f"{group}/step", -1)
        return self._last[group]


TRACKERS: dict[TrackerName, Callable[[Path], Tracker]] = {
    "tensorboard": lambda run: TensorBoard(run / "tensorboard"),
    "wandb": WandB,
}
