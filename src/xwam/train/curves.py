"""Curves of one or several runs as a picture, from their logs: people would rather look than read."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from xwam.core.files import write_atomically
from xwam.train.tracking import numbers_of, records_of

# Okabe and Ito's colours, which the colour-blind tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT, PAPER = "#222222", "#dddddd", "#ffffff"
WIDTH, HEIGHT, COLUMNS = 420, 250, 4  # of a panel; panels beside each other
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 26  # margins around its axes
SHARPER = 2  # drawn so much larger, and shrunk: edges without steps
RADIUS = 3 * SHARPER  # of a dot
MANY = 100  # points from which on a line is averaged, and below which each is a dot, too
SMOOTHED_SHARE = 0.02  # of all points: how far a line is averaged
GROUPS = ("losses", "closed_loop", "imagined", "actions", "levels", "training")
SHARES = ("closed_loop/success",)  # from 0 to 1
LOGARITHMIC = ("losses/", "levels/", "training/gradient_norm")
# Nobody looks at them as curves, or they stand in the panels of other names.
HIDDEN = ("closed_loop/episodes", "imagined/still/", "imagined/autoencoder/", "validation/")

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def draw_curves(runs: Sequence[Path], out: Path) -> None:
    """A PNG: a panel for each number of the logs, a colour for each run.

    What is logged every step is a faint line under its moving average; validation's losses are dots in their panels.
    Raises ValueError if a run has no log.
    """
    names = [run.name for run in runs]
    labels = names if len(set(names)) == len(names) else [str(run) for run in runs]
    series = {label: series_of(run) for label, run in zip(labels, runs, strict=True)}
    colours = dict(zip(labels, cycle(COLOURS), strict=False))
    found = dict.fromkeys(name for numbers in series.values() for name in numbers)
    panels = sorted((name for name in found if not name.startswith(HIDDEN)), key=_rank)
    rows, columns = -(-len(panels) // COLUMNS), min(COLUMNS, len(panels))
    image = Image.new("RGB", (SHARPER * WIDTH * columns, SHARPER * (HEIGHT * rows + TOP)), PAPER)
    pen = ImageDraw.Draw(image)
    x = 12.0
    for label, colour in colours.items():
        _text(pen, (x, 8), label, colour, size=15)
        x += pen.textlength(label, ImageFont.load_default(SHARPER * 15)) / SHARPER + 24
    for index, name in enumerate(panels):
        corner = (WIDTH * (index % COLUMNS), TOP + HEIGHT * (index // COLUMNS))
        _Panel(pen, corner, name, series, colours).draw()
    small = image.resize((image.width // SHARPER, image.height // SHARPER), Image.Resampling.LANCZOS)
    write_atomically(out, lambda path: small.save(path, format="png"))


def series_of(run: Path) -> Series:
    """Every number of a run's log: its steps and its values, in the order of the steps."""
    points: dict[str, list[tuple[int, float]]] = {}
    for record in records_of(run):
        for name, value in numbers_of(record).items():
            points.setdefault(name, []).append((record["step"], value))
    if not points:
        raise ValueError(f"{run} has no log: name the folder of a run")
    return {name: tuple(np.array(sorted(found), dtype=np.float64).T) for name, found in points.items()}


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` values, of fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def _rank(name: str) -> tuple[int, str]:
    """Groups in the order in which one asks for them."""
    group = name.split("/")[0]
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS)), name


class _Panel:
    """One number of several runs over steps."""

    def __init__(
        self,
        pen: ImageDraw.ImageDraw,
        corner: tuple[int, int],
        name: str,
        series: Mapping[str, Series],
        colours: Mapping[str, str],
    ):
        self._pen, self._corner, self._name = pen, corner, name
        own = {run: numbers[name] for run, numbers in series.items() if name in numbers}
        # validation's losses beside those of training
        checked = name.replace("losses/", "validation/")
        dots = {run: numbers[checked] for run, numbers in series.items() if checked != name and checked in numbers}
        everything = np.concatenate([values for _, values in (*own.values(), *dots.values())])
        self._log = name.startswith(LOGARITHMIC) and bool((everything > 0).any())
        shown = everything[everything > 0] if self._log else everything
        # one wild step must not flatten all others
        self._low, self._high = (float(x) for x in np.quantile(shown, [0.002, 0.998]))
        if name.startswith(SHARES):
            self._low, self._high = 0.0, 1.0
        if self._high - self._low < 1e-9 * max(abs(self._high), 1e-9):
            self._low, self._high = self._low * 0.9 - 1e-9 * (not self._log), self._high * 1.1 + 1e-9
        self._steps = max(float(steps.max()) for numbers in series.values() for steps, _ in numbers.values())
        self._own, self._dots, self._colours = own, dots, colours

    def draw(self) -> None:
        self._axes()
        for run, (steps, values) in self._own.items():
            colour = self._colours[run]
            if len(values) > MANY:
                self._line(steps, values, _pale(colour), width=1)
                values = moving_average(values, max(1, round(SMOOTHED_SHARE * len(values))))
            self._line(steps, values, colour, width=2)
            if len(values) <= MANY:
                self._points(steps, values, colour)
        for run, (steps, values) in self._dots.items():
            self._points(steps, values, self._colours[run])

    def _axes(self) -> None:
        _text(self._pen, self._moved(LEFT, 8), self._name.replace("_", " "), INK, size=13)
        for share in (0.0, 0.5, 1.0):
            value = self._value(share)
            (x, y), (end, _) = self._place(0, value), self._place(self._steps, value)
            self._pen.line([_sharp(x, y), _sharp(end, y)], FAINT, SHARPER)
            _text(self._pen, (self._corner[0] + 4, y - 7), f"{value:.3g}", INK, size=11)
        for share in (0.0, 0.5, 1.0):
            x, y = self._place(share * self._steps, self._low)
            label = f"{share * self._steps:.0f}"
            _text(self._pen, (x - 3.3 * len(label), y + 6), label, INK, size=11)

    def _value(self, share: float) -> float:
        """The value at this share of the height."""
        if self._log:
            return self._low * (self._high / self._low) ** share
        return self._low + (self._high - self._low) * share

    def _place(self, step: float, value: float) -> tuple[float, float]:
        """Pixels of a point; what lies beyond the axes is drawn on them."""
        value = min(max(value, self._low), self._high)
        if self._log:
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        across = (WIDTH - LEFT - RIGHT) * step / max(self._steps, 1)
        return self._moved(LEFT + across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share)

    def _moved(self, x: float, y: float) -> tuple[float, float]:
        return self._corner[0] + x, self._corner[1] + y

    def _line(self, steps: np.ndarray, values: np.ndarray, colour: str | tuple[int, ...], width: int) -> None:
        places = [_sharp(*self._place(*point)) for point in zip(steps, values, strict=True)]
        self._pen.line(places, colour, SHARPER * width, joint="curve")

    def _points(self, steps: np.ndarray, values: np.ndarray, colour: str) -> None:
        for point in zip(steps, values, strict=True):
            x, y = _sharp(*self._place(*point))
            self._pen.ellipse([x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS], colour, PAPER, SHARPER)


def _text(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str, size: int) -> None:
    pen.text(_sharp(*place), text, colour, ImageFont.load_default(SHARPER * size))


def _sharp(x: float, y: float) -> tuple[float, float]:
    return SHARPER * x, SHARPER * y


def _pale(colour: str) -> tuple[int, ...]:
    return tuple(255 - (255 - channel) // 4 for channel in ImageColor.getrgb(colour))
