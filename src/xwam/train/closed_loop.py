"""Success in closed loop while training goes on: a process of its own for every so many steps, one after the other.

run/closed_loop/step_00001000/
    ema.safetensors     averaged weights, linked from the checkpoint, which may go meanwhile
    model/              the same as an exported model; both are removed once it is evaluated
    attempts            how often its evaluation was begun
    output.txt          what it said
    results.json        what it found, its last word; what else it writes stands beside it

Whatever is killed, and whenever, the next start finds in this folder what is left to do: a result that the log does not
hold is told, an evaluation that still runs is waited for, one that was killed is begun again, but not without end.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from pydantic import Field

from xwam.core.config import Frozen
from xwam.core.files import read_json, write_atomically
from xwam.core.success import SuccessRate, pooled
from xwam.train.checkpoint import step_of
from xwam.train.tracking import records_of

FOLDER, WEIGHTS, EXPORTED = "closed_loop", "ema*.safetensors", "model"
RESULTS, ATTEMPTS, OUTPUT = "results.json", "attempts", "output.txt"
MOST_ATTEMPTS = 3
POLL_S = 1.0
# What torchrun tells the ranks is not meant for an evaluation, which has cores to leave to others.
OF_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_", "TORCHELASTIC_")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

# Writes the model whose averaged weights are in the first folder into the second.
Export = Callable[[Path, Path], None]


class ClosedLoopConfig(Frozen):
    """Success in closed loop of the averaged weights every `every` steps, which are steps of checkpoints; 0 is never.

    `episodes` of each of the `tasks`, those of the dataset if none are given, by `workers` processes on `device`, as
    background work of this niceness. `at_end` says whether training waits for the last one or leaves it running.
    """

    every: int = Field(0, ge=0)
    tasks: tuple[str, ...] = ()
    episodes: int = Field(5, gt=0)
    execute: int = Field(8, gt=0)
    workers: int = Field(1, gt=0)
    device: str = "cpu"
    niceness: int = Field(10, ge=0, le=19)
    at_end: Literal["wait", "leave"] = "wait"

    def check(self, save_every: int) -> None:
        """Raises if there are no checkpoints at these steps."""
        if self.every % save_every:
            raise ValueError(
                f"closed_loop.every {self.every} is no multiple of train.save_every {save_every}: "
                "checkpoints are what is evaluated"
            )


# The command that evaluates the model in the first folder, and writes results.json into the second at its end.
Command = Callable[[Path, Path, ClosedLoopConfig], Sequence[str]]


class ClosedLoop:
    """Evaluates checkpoints of `run` in a thread, which exports, starts and waits; the trainer asks what it found.

    Of checkpoints that wait for an evaluation to end, the newest comes next and the others are left out.
    """

    def __init__(self, run: Path, config: ClosedLoopConfig, export: Export, command: Command):
        self._run, self._folder, self._config = run, run / FOLDER, config
        self._export, self._command = export, command
        self._found: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._told: set[int] | None = None
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen | None = None
        self._stop, self._settled = threading.Event(), threading.Event()

    def begin(self, checkpoint: Path) -> None:
        """Keeps the averaged weights of a checkpoint, if its step is due, and returns at once."""
        place = self._folder / checkpoint.name
        if step_of(checkpoint) % self._config.every == 0 and not place.exists():
            part = place.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for file in checkpoint.glob(WEIGHTS):
                _link(file, part / file.name)
            part.rename(place)
            self._work()

    def found(self) -> Iterator[dict[str, Any]]:
        """Records with the results that the log does not hold yet."""
        if self._told is None:
            self._told = {record["step"] for record in records_of(self._run) if "closed_loop" in record}
            self._tell_all()
            self._work()
        while not self._found.empty():
            record = self._found.get()
            if record["step"] not in self._told:
                self._told.add(record["step"])
                yield record

    def end(self, finished: bool) -> bool:
        """Whether there is something to wait for still; a run that is only stopped ends its evaluation, for now."""
        if finished:
            self._work()
            if self._thread is not None and self._thread.is_alive():
                if self._config.at_end == "wait":
                    self._thread.join(POLL_S)
                    return True
                if not self._settled.wait(POLL_S):
                    return True
        self._stop.set()
        if not finished and self._thread is not None:
            self._end_process()
            self._thread.join(POLL_S)  # an export may take longer, and is begun again
        return False

    def _work(self) -> None:
        """Goes on in the background, if anything waits and nothing is at it."""
        alive = self._thread is not None and self._thread.is_alive()
        if self._waiting() and not alive and not self._stop.is_set():
            self._settled.clear()
            self._thread = threading.Thread(target=self._evaluate_all, name="closed-loop", daemon=True)
            self._thread.start()

    def _evaluate_all(self) -> None:
        while not self._stop.is_set():
            with open(self._folder / "lock", "w") as lock:
                try:
                    # held by an evaluation as long as it lives, whatever has become of its trainer
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._settled.set()
                    time.sleep(POLL_S / 10)
                    continue
                self._tell_all()
                *passed, place = self._waiting() or [None]
                if place is None:
                    return
                for older in passed:
                    shutil.rmtree(older)
                try:
                    self._evaluate(place, lock.fileno())
                except Exception as error:  # whatever goes wrong, training goes on
                    self._give_up(place, f"failed, {type(error).__name__}: {error}")
                self._tell_all()

    def _evaluate(self, place: Path, lock: int) -> None:
        attempts = place / ATTEMPTS
        begun = int(attempts.read_text()) if attempts.exists() else 0
        if begun >= MOST_ATTEMPTS:
            self._give_up(place, f"was killed {begun} times")
            return
        write_atomically(attempts, lambda path: path.write_text(str(begun + 1)))
        if not (place / EXPORTED).exists():
            part = place / f"{EXPORTED}.part"
            shutil.rmtree(part, ignore_errors=True)
            self._export(place, part)
            part.rename(place / EXPORTED)
        code = self._run_command(place, lock)
        if (place / RESULTS).exists():
            _record(place)  # which raises if they are no results
            _clear(place)
        elif self._stop.is_set():
            attempts.unlink()  # it was ended with its run, which is nothing against it
        elif code >= 0:
            self._give_up(place, f"ended with exit code {code} and without {RESULTS}, {place / OUTPUT} says why")

    def _run_command(self, place: Path, lock: int) -> int:
        """Evaluates, and returns the exit code, negative if it was killed."""
        if self._stop.is_set():
            return 0
        with open(place / OUTPUT, "a") as output:
            self._process = subprocess.Popen(
                ["nice", "-n", str(self._config.niceness), *self._command(place / EXPORTED, place, self._config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if not name.startswith(OF_RANKS)} | ONE_THREAD,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C is for the trainer
            )
        self._settled.set()
        return self._process.wait()

    def _end_process(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):  # it may end by itself at this moment
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(timeout=10 * POLL_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    def _tell_all(self) -> None:
        """Hands over all results that are there; who takes them knows which are new."""
        for place in self._places():
            if (place / RESULTS).exists():
                with suppress(ValueError, KeyError, TypeError):  # of what cannot be read was told when it was written
                    self._found.put(_record(place))

    def _give_up(self, place: Path, why: str) -> None:
        if _weights(place):
            print(f"Closed-loop evaluation of step {step_of(place)} {why}: left out.", file=sys.stderr, flush=True)
            _clear(place)

    def _waiting(self) -> list[Path]:
        """What is to be evaluated, the newest last."""
        return [place for place in self._places() if _weights(place) and not (place / RESULTS).exists()]

    def _places(self) -> list[Path]:
        return sorted(place for place in self._folder.glob("step_*") if place.suffix != ".part")


def evaluation_command(model: Path, out: Path, config: ClosedLoopConfig) -> list[str]:
    """`xwam eval`: success alone."""
    verb = [sys.executable, "-m", "xwam", "eval", str(model), "--out", str(out), "--dreams", "0"]
    for name in ("episodes", "execute", "workers", "device"):
        verb += [f"--{name}", str(getattr(config, name))]
    return [*verb, "--tasks", *config.tasks]


def _record(place: Path) -> dict[str, Any]:
    """Results of one step as a record of the log: the mean over all episodes, and each task."""
    rows = [
        SuccessRate(row["task"], row["successes"], row["episodes"]) for row in read_json(place / RESULTS)["success"]
    ]
    every = pooled(rows, "mean")
    tasks = {f"success/{row.task}": row.rate for row in rows}
    return {"step": step_of(place), "closed_loop": {"success": every.rate, "episodes": every.episodes, **tasks}}


def _weights(place: Path) -> bool:
    """Whether there is anything to evaluate still."""
    return (place / EXPORTED).exists() or any(place.glob(WEIGHTS))


def _clear(place: Path) -> None:
    """Removes the weights: what they were worth is known, or never will be."""
    shutil.rmtree(place / EXPORTED, ignore_errors=True)
    for file in place.glob(WEIGHTS):
        file.unlink()


def _link(file: Path, to: Path) -> None:
    """The same file under another name, which outlives the first; a copy where a file system has no links."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
