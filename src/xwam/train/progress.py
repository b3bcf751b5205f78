"""What a run shows while it goes on, and how one asks it to stop."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

Record = Mapping[str, Any]
Show = Callable[[Record, int, int], None]
NUMBERS = ("gradient_norm", "learning_rate")
RECENT_STEPS = 50


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C acts at once.

    A second SIGTERM does not: a cluster sends it to the launcher and to the processes, and the launcher passes it on.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, frame: object) -> None:
        stop.set()
        if number == signal.SIGINT:
            signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number in numbers:
            signal.signal(number, before[number])


class Pace:
    """How fast a run goes and when it ends: from what it did since it was started, which may be at a later step."""

    def __init__(self, start: int, steps: int):
        self._start, self._steps, self._began = start, steps, time.monotonic()
        # of the last steps: when each ended, and all samples and tokens since the start
        self._recent = deque([(self._began, 0, 0)], maxlen=RECENT_STEPS + 1)

    def add(self, samples: int, tokens: int) -> None:
        """One more step of so many samples and tokens."""
        _, *totals = self._recent[-1]
        self._recent.append((time.monotonic(), totals[0] + samples, totals[1] + tokens))

    def left(self, step: int) -> str:
        """The time that the rest takes, validation and checkpoints included."""
        seconds = (time.monotonic() - self._began) / (step - self._start) * (self._steps - step)
        minutes = round(seconds / 60)
        return f"{seconds:.0f} s left" if seconds < 90 else f"{minutes // 60}:{minutes % 60:02d} h left"

    def __str__(self) -> str:
        """Of the last steps."""
        (first_s, *before), (last_s, *now) = self._recent[0], self._recent[-1]
        seconds = max(last_s - first_s, 1e-9)
        samples, tokens = ((after - earlier) / seconds for after, earlier in zip(now, before, strict=True))
        step_s = seconds / (len(self._recent) - 1)
        return f"{step_s:.3g} s/step  {_thousands(samples)} samples/s  {_thousands(tokens)} tokens/s"


@contextmanager
def progress(start: int, steps: int, every_s: float = 30.0) -> Iterator[Show]:
    """A function to call after each step with its record in the log, and how many samples and tokens it took.

    It moves a bar over the step's numbers on a terminal, and prints a line now and then elsewhere.
    """
    console, pace = Console(), Pace(start, steps)
    shown = time.monotonic()

    def line(record: Record, samples: int, tokens: int) -> None:
        nonlocal shown
        step, now = record["step"], time.monotonic()
        pace.add(samples, tokens)
        if step in (start + 1, steps) or now - shown >= every_s:
            shown = now
            print("  ".join([f"{step}/{steps}", pace.left(step), str(pace), *_about(record)]), flush=True)

    if not console.is_terminal:
        yield line
        return
    columns = (MofNCompleteColumn(), BarColumn(None), TextColumn("{task.description}"))
    bar, numbers = Progress(*columns, console=console, expand=True), Text()
    task = bar.add_task("", total=steps, completed=start)

    def move(record: Record, samples: int, tokens: int) -> None:
        pace.add(samples, tokens)
        bar.update(task, completed=record["step"], description=pace.left(record["step"]))
        losses, *rest = _about(record)
        numbers.plain = "\n".join([losses, "  ".join([*rest, str(pace)])])

    with Live(Group(bar, numbers), console=console, refresh_per_second=2):
        yield move


def _about(record: Record) -> list[str]:
    """The losses of a step, or that it was skipped, and its other numbers."""
    losses = "  ".join(f"{name} {value:.4f}" for name, value in record.get("losses", {}).items())
    numbers = [f"{name.replace('_', ' ')} {record[name]:.3g}" for name in NUMBERS if name in record]
    return [losses or "skipped", *numbers]


def _thousands(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number / 1000:.3g}k"
