"""Predictions and baselines beside each other: numbers for files, tables for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from xwam.scene.estimates import Estimate, by_step, summarise
from xwam.scene.frechet import frechet_distance
from xwam.scene.measures import MEASURES, Measure
from xwam.scene.score import REGIONS, ClipScores, Region

TITLES = {"all": "All pixels", "changed": "What changed"}


class Table(NamedTuple):
    """A title, the heads of the columns, and the cells by row."""

    title: str
    heads: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        lines = [self.heads, ["---"] * len(self.heads), *self.rows]
        return f"### {self.title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


@dataclass(frozen=True)
class Scoreboard:
    """Scores of the same clips by column: predictions first, then baselines.

    `protocol` tells in words what was scored and how; frames are `period_s` apart.
    """

    columns: Mapping[str, Sequence[ClipScores]]
    period_s: float
    protocol: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self):
        episodes = {name: sorted(one.episode for one in scores) for name, scores in self.columns.items()}
        first = next(iter(episodes.values()), [])
        if not first or any(own != first for own in episodes.values()):
            told = {name: len(own) for name, own in episodes.items()}
            raise ValueError(f"clips by column are {told}: score the same clips of every prediction, at least one")

    @cached_property
    def over(self) -> dict[str, dict[str, Estimate]]:
        """By column and number, over all frames."""
        return {name: summarise(scores) for name, scores in self.columns.items()}

    @cached_property
    def steps(self) -> dict[str, dict[str, list[Estimate]]]:
        """By column and number, of every frame from 1 on."""
        return {name: by_step(scores) for name, scores in self.columns.items()}

    @cached_property
    def fvd(self) -> dict[str, float]:
        """By column, over the films of all clips together; of columns that have features."""
        found = {}
        for name, scores in self.columns.items():
            if all(one.features is not None for one in scores):
                ours, true = (np.concatenate(sets) for sets in zip(*(one.features for one in scores), strict=True))
                found[name] = frechet_distance(ours, true)
        return found

    def measures(self, region: Region) -> list[Measure]:
        """The measures of this region that some column has, with the parts of actions among all."""
        known = {name for own in self.over.values() for name, one in own.items() if one.count}
        parts = sorted(name for name in known if name.startswith(f"{region}/robot/"))
        actions = [action_measure(name.removeprefix(f"{region}/")) for name in parts]
        return [measure for measure in (*MEASURES, *actions) if f"{region}/{measure.key}" in known]

    def numbers(self) -> dict:
        """All of it as JSON: by column and number, the estimate over all frames and that of each; what is known."""
        columns = {}
        for name, own in self.over.items():
            known = {key: one for key, one in own.items() if one.count}
            by_frame = {key: [_json(one) for one in self.steps[name][key]] for key in known}
            columns[name] = {key: {**_json(one), "by_frame": by_frame[key]} for key, one in known.items()}
        first = next(iter(self.columns.values()))
        counts = {"clips": len(first), "episodes": len({one.episode or str(k) for k, one in enumerate(first)})}
        about = {"protocol": dict(self.protocol), **counts, "frame_period_s": self.period_s}
        return about | ({"fvd": self.fvd} if self.fvd else {}) | {"columns": columns}

    def tables(self) -> list[Table]:
        """By region the means with intervals, and the means by view."""
        tables = [self._compared(region) for region in REGIONS[::-1]]
        return [table for table in (*tables, self._by_view()) if table.rows]

    def _compared(self, region: Region) -> Table:
        rows = [
            [measure.title, *(told(measure, own.get(f"{region}/{measure.key}")) for own in self.over.values())]
            for measure in self.measures(region)
        ]
        if region == "all" and self.fvd:
            rows.append(["FVD ↓", *(f"{self.fvd[name]:.1f}" if name in self.fvd else "–" for name in self.over)])
        return Table(TITLES[region], ["", *self.over], rows)

    def _by_view(self) -> Table:
        """Images and depth by camera."""
        cameras, rows = self._cameras(), []
        for measure in self.measures("all"):
            keys = [f"all/{camera}/{measure.key.split('/')[1]}" for camera in cameras]
            for name, own in self.over.items():
                if all(key in own for key in keys):
                    rows.append([measure.title, name, *(_short(measure, own[key]) for key in keys)])
        return Table("By view, all pixels", ["", "", *cameras], rows)

    def by_frame(self) -> Table:
        """The means at every frame: too wide for a terminal."""
        frames, rows = len(next(iter(next(iter(self.columns.values()))[0].steps.values()))), []
        for measure in self.measures("all"):
            for name, steps in self.steps.items():
                if f"all/{measure.key}" in steps:
                    rows.append([measure.title, name, *(_short(measure, one) for one in steps[f"all/{measure.key}"])])
        heads = [f"{1000 * self.period_s * (t + 1):.0f} ms" for t in range(frames)]
        return Table("By frame, all pixels", ["", "", *heads], rows)

    def _cameras(self) -> list[str]:
        steps = next(iter(self.columns.values()))[0].steps
        groups = ("static", "every", "mounted", "robot")
        return list(dict.fromkeys(view for view in (name.split("/")[1] for name in steps) if view not in groups))


def action_measure(key: str) -> Measure:
    """How the error of a part of the actions is written; its key is `robot/part, unit`."""
    part, unit = key.removeprefix("robot/").split(", ", 1)
    return Measure(key, f"Action {part}", unit, 1.0, 2, False)


def told(measure: Measure, estimate: Estimate | None) -> str:
    """The mean with its interval, the mean alone of a single episode, or a dash."""
    if estimate is None or not estimate.count:
        return "–"
    mean = measure.text(estimate.mean, unit=False)
    if estimate.count == 1:
        return mean
    return f"{mean} ({measure.text(estimate.low, unit=False)} to {measure.text(estimate.high, unit=False)})"


def _short(measure: Measure, estimate: Estimate) -> str:
    return measure.text(estimate.mean, unit=False)


def _json(estimate: Estimate) -> dict[str, float | int | None]:
    return {name: None if np.isnan(value) else value for name, value in asdict(estimate).items()}
