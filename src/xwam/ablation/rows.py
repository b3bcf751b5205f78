"""What is compared: the rows of the table, and which of them answer which question."""

from typing import Literal, Self

from pydantic import Field, model_validator

from xwam.core.config import Frozen
from xwam.train.runs import ModelRun


class Row(Frozen):
    """What a row changes of the recipe; rows that differ in `synchronous` alone share one training."""

    name: str
    depth: Literal["none", "channels", "sequence", "branch"] = "branch"
    law: Literal["coupled", "independent", "asynchronous"] = "asynchronous"
    clean_action_probability: float = Field(0.5, ge=0, lt=1)
    synchronous: bool = False  # actions take all of the video's steps

    @model_validator(mode="after")
    def _coupled_is_synchronous(self) -> Self:
        if self.law == "coupled" and not self.synchronous:
            raise ValueError(f"row {self.name!r}: the coupled law only samples synchronously, set synchronous")
        return self

    @property
    def training(self) -> str:
        """A name for all that training depends on."""
        clean = f"-{self.clean_action_probability:g}" if self.law == "asynchronous" else ""
        return f"{self.depth}-{self.law}{clean}"

    @property
    def sampling(self) -> str:
        return "synchronous" if self.synchronous else "asynchronous"

    def action_steps(self, run: ModelRun) -> int:
        """In how many steps actions are sampled."""
        return run.model.noise.video_steps if self.synchronous else run.model.noise.action_steps

    def applied_to(self, run: ModelRun, seed: int) -> ModelRun:
        """The run that trains this row: the same data, of which `seed` decides the order, and the first weights."""
        network, noise = run.model.transformer, run.model.noise
        settings = {
            "model.transformer.depth": "branch" if self.depth == "none" else self.depth,
            "model.transformer.depth_blocks": network.depth_blocks if self.depth == "branch" else 0,
            "model.noise.law": self.law,
            "model.noise.clean_action_probability": self.clean_action_probability,
            "model.noise.action_steps": noise.video_steps if self.law == "coupled" else noise.action_steps,
            "train.seed": seed,
            "train.threads": 1,
        }
        return run.override([f"{name}={value}" for name, value in settings.items()])


class Comparison(Frozen):
    """Whether `what`, which `row` has and `against` lacks, helps."""

    what: str
    row: str
    against: str


BASE = "interleaved branch, ANS"
ROWS = (
    Row(name="no depth", depth="none"),
    Row(name="channel concatenation", depth="channels"),
    Row(name="sequence concatenation", depth="sequence"),
    Row(name=BASE),
    Row(name="coupled noise", law="coupled", synchronous=True),
    Row(name="independent noise", law="independent"),
    Row(name="independent noise, synchronous", law="independent", synchronous=True),
    Row(name="ANS without clean actions", clean_action_probability=0.0),
    Row(name="ANS, synchronous", synchronous=True),
)
COMPARISONS = (
    Comparison(what="depth as an interleaved branch", row=BASE, against="no depth"),
    Comparison(what="depth as further channels", row="channel concatenation", against="no depth"),
    Comparison(what="depth as further tokens", row="sequence concatenation", against="no depth"),
    Comparison(what="a branch rather than channels", row=BASE, against="channel concatenation"),
    Comparison(what="a branch rather than tokens", row=BASE, against="sequence concatenation"),
    Comparison(what="ANS rather than coupled noise", row=BASE, against="coupled noise"),
    Comparison(what="ANS rather than independent noise", row=BASE, against="independent noise"),
    Comparison(what="training with clean actions", row=BASE, against="ANS without clean actions"),
    Comparison(what="asynchronous sampling", row=BASE, against="ANS, synchronous"),
)


class AblationConfig(Frozen):
    """All that the table depends on; `base` says what every row shares."""

    base: ModelRun
    tasks: tuple[str, ...]
    rows: tuple[Row, ...] = ROWS
    comparisons: tuple[Comparison, ...] = COMPARISONS
    seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = Field(5, ge=0)  # in closed loop, of each task, for each seed
    dreams: int = Field(1, ge=0)  # unseen episodes of each task to imagine three moments of, for each seed
    execute: int = Field(8, gt=0)
    lpips: str | None = None  # a folder of weights, as model/lpips.py says

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds) or not (names and self.seeds):
            raise ValueError(f"rows {names} and seeds {self.seeds}: give one or more of each, and each once")
        if any(row.depth == "branch" for row in self.rows) and not self.base.model.transformer.depth_blocks:
            raise ValueError("a row has a depth branch and the recipe no depth_blocks: give it some")
        return self

    def only(self, names: tuple[str, ...]) -> Self:
        """The same with these rows alone, and the comparisons that they allow."""
        known = [row.name for row in self.rows]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"no row {unknown[0]!r}; there are {', '.join(known)}")
        rows = tuple(row for row in self.rows if row.name in names)
        comparisons = tuple(c for c in self.comparisons if {c.row, c.against} <= set(names))
        return self.model_copy(update={"rows": rows, "comparisons": comparisons})

    def trainings(self) -> list[tuple[Row, int]]:
        """A row for each training that the table needs, and its seed; all rows' first seed comes first."""
        first = {row.training: row for row in reversed(self.rows)}
        return [(first[name], seed) for seed in self.seeds for name in dict.fromkeys(r.training for r in self.rows)]
