"""The table of an ablation and what it says, in Markdown and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from xwam.ablation.rows import Comparison
from xwam.ablation.statistics import SeedEstimate, Values, difference, verdict

Measured = Mapping[str, Mapping[str, Values]]  # row -> measure -> seed -> value


@dataclass(frozen=True)
class Column:
    """A measure under the name of `ClipScores.flat`, or success; shown `scale` times as large."""

    measure: str
    title: str
    unit: str
    digits: int
    higher_is_better: bool
    scale: float = 1.0

    @property
    def heading(self) -> str:
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.title}{unit} {'↑' if self.higher_is_better else '↓'}"

    def number(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}"

    def shown(self, estimate: SeedEstimate | None) -> str:
        if estimate is None:
            return "–"
        mean = self.number(estimate.mean)
        return mean if math.isinf(estimate.half_width) else f"{mean} ± {self.number(estimate.half_width)}"


SUCCESS = Column("success", "success", "%", 1, True, 100)


def quality(region: str) -> tuple[Column, ...]:
    """Measures of dreams over `all` pixels or those that `changed`; images of still cameras, as X-WAM reports them."""
    return (
        Column(f"{region}/static/psnr_db", "PSNR", "dB", 2, True),
        Column(f"{region}/static/ssim", "SSIM", "", 3, True),
        Column(f"{region}/static/lpips", "LPIPS", "", 4, False),
        Column(f"{region}/every/abs_rel", "AbsRel", "", 4, False),
        Column(f"{region}/every/delta1", "delta1", "", 4, True),
        Column(f"{region}/every/chamfer_m", "Chamfer", "mm", 1, False, 1000),
    )


def columns_of(measured: Measured, region: str) -> list[Column]:
    """Success and the measures of a region, without those that are known of no row."""
    columns = (SUCCESS, *quality(region))
    return [c for c in columns if any(SeedEstimate.of(found.get(c.measure, {})) for found in measured.values())]


def task_table(measured: Measured) -> str:
    """A line a row with the success in each task over all seeds, in percent; empty if it was not measured."""
    tasks = list(dict.fromkeys(name for found in measured.values() for name in found if name.startswith("success/")))
    lines = [["", *(task.rsplit("/", 1)[-1] for task in tasks)], ["---"] * (len(tasks) + 1)]
    for row, found in measured.items():
        if SUCCESS.measure in found:
            lines.append([row, *(f"{100 * fmean(found[task].values()):.0f}" for task in tasks)])
    return _lines(lines) if tasks else ""


def markdown_table(measured: Measured, latencies_s: Mapping[str, float], base: str, region: str) -> str:
    """A line a row; latency of a chunk of actions is a ratio to the row `base`."""
    columns = columns_of(measured, region)
    titles = ["", *(column.heading for column in columns)]
    lines = [[*titles, "latency, × ↓"], ["---"] * (len(columns) + 2)]
    for row, measures in measured.items():
        cells = [column.shown(SeedEstimate.of(measures.get(column.measure, {}))) for column in columns]
        lines.append([row, *cells, f"{latencies_s[row] / latencies_s[base]:.2f}" if row in latencies_s else "–"])
    return _lines(lines)


def _lines(cells: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def sentence(comparison: Comparison, measured: Measured) -> str:
    """What the two rows' difference in success says, and which other measures differ by more than seeds explain."""
    row, against = measured[comparison.row], measured[comparison.against]
    found = difference(row.get("success", {}), against.get("success", {}))
    what = comparison.what[0].upper() + comparison.what[1:]
    if found is None:
        return f"{what}: success was not measured.{_others(row, against)}"
    both = [f"{100 * SeedEstimate.of(values['success']).mean:.1f}%" for values in (row, against)]
    told = f"{what}: success {both[0]} against {both[1]} ({comparison.against}), {100 * found.mean:+.1f} points"
    if found.seeds == 1:
        return f"{told}; one seed does not tell this from noise."
    low, high = (100 * end for end in found.interval)
    says = {"better": "it helps here", "worse": "it hurts here", "unclear": f"within the noise of {found.seeds} seeds"}
    return f"{told} (95% interval {low:+.1f} to {high:+.1f}): {says[verdict(found, True)]}.{_others(row, against)}"


def _others(row: Mapping[str, Values], against: Mapping[str, Values]) -> str:
    """The other measures by verdict, over all pixels and over the changed ones."""
    sorted_out: dict[str, list[str]] = {"better": [], "worse": [], "unclear": []}
    for region in ("all", "changed"):
        for column in quality(region):
            found = difference(row.get(column.measure, {}), against.get(column.measure, {}))
            if found is not None:
                said = f"{column.title} of {region} ({column.scale * found.mean:+.{column.digits}f})"
                sorted_out[verdict(found, column.higher_is_better)].append(said)
    titles = {"better": "Better", "worse": "Worse", "unclear": "Within noise"}
    return "".join(f" {titles[name]}: {', '.join(said)}." for name, said in sorted_out.items() if said)


def as_json(measured: Measured, latencies_s: Mapping[str, float], comparisons: Sequence[Comparison]) -> dict:
    """Every number by row and seed, with means and intervals, and the sentences."""

    def about(values: Values) -> dict:
        estimate = SeedEstimate.of(values)
        known = estimate is not None and not math.isinf(estimate.half_width)
        return {
            "by_seed": {str(seed): None if math.isnan(value) else value for seed, value in values.items()},
            "mean": None if estimate is None else estimate.mean,
            "interval": list(estimate.interval) if known else None,
        }

    rows = {
        row: {measure: about(values) for measure, values in measures.items()} | {"latency_s": latencies_s.get(row)}
        for row, measures in measured.items()
    }
    said = [{**comparison.model_dump(), "says": sentence(comparison, measured)} for comparison in comparisons]
    return {"rows": rows, "comparisons": said}
