"""The table as a picture, an SVG: rows below each other, every seed a dot."""

import math
from collections.abc import Callable
from html import escape

from xwam.ablation.statistics import SeedEstimate, Values
from xwam.ablation.table import Column, Measured, columns_of

NAMES, WIDTH, BESIDE = 215, 250, 3  # pixels for the rows' names, of a panel; panels beside each other
TITLE, LINE, MARGIN = 34, 20, 16  # above a panel's rows; of a row; around an axis
STYLE = "text{font:12px sans-serif;fill:#222}.tick{font-size:10px;fill:#666}.axis{stroke:#ccc}"
MEAN, SEED = "#0072B2", "#222"


def draw(measured: Measured) -> str:
    """A panel for success and each measure of what changed: a small dot a seed, a large one their mean.

    The pale bar is the mean's 95% interval; where it is longer than the panel, which all seeds of all rows span, it
    ends at the edge. One seed has no interval.
    """
    columns = columns_of(measured, "changed")
    height = TITLE + LINE * len(measured) + 2 * MARGIN
    below = -(-len(columns) // BESIDE)
    names = [_name(row, height * at + _y(k)) for at in range(below) for k, row in enumerate(measured)]
    corners = [(NAMES + WIDTH * (k % BESIDE), height * (k // BESIDE)) for k in range(len(columns))]
    panels = [
        f'<g transform="translate({left} {top})">{_panel(column, measured)}</g>'
        for (left, top), column in zip(corners, columns, strict=True)
    ]
    size = NAMES + WIDTH * min(BESIDE, len(columns)), height * below
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'height="{size[1]}"><style>{STYLE}</style><rect width="{size[0]}" height="{size[1]}" fill="#fff"/>'
        f"{''.join(names)}{''.join(panels)}</svg>\n"
    )


def _y(row: int) -> int:
    return TITLE + LINE * row + LINE // 2


def _name(row: str, y: int) -> str:
    return f'<text x="{NAMES}" y="{y + 4}" text-anchor="end">{escape(row)}</text>'


def _panel(column: Column, measured: Measured) -> str:
    found = [measures.get(column.measure, {}) for measures in measured.values()]
    known = [value for values in found for value in values.values() if not math.isnan(value)]
    low, high = min(known), max(known)
    spare = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    span = (low - spare, high + spare)

    def x(value: float) -> float:
        """Where it is drawn, at the edge if it is out of the span."""
        share = (value - span[0]) / (span[1] - span[0])
        return MARGIN + (WIDTH - 2 * MARGIN) * min(max(share, 0.0), 1.0)

    rows = [_row(values, x, _y(k)) for k, values in enumerate(found)]
    return f"{_axis(column, (low, high), x, _y(len(measured)))}{''.join(rows)}"


def _axis(column: Column, ends: tuple[float, float], x: Callable[[float], float], y: int) -> str:
    ticks = "".join(
        f'<text class="tick" x="{x(end):.1f}" y="{y + 4}" text-anchor="{anchor}">{text}</text>'
        for end, anchor, text in zip(ends, ("start", "end"), map(column.number, ends), strict=True)
    )
    return f'<text x="{MARGIN}" y="{TITLE - 12}">{column.heading}</text>{ticks}'


def _row(values: Values, x: Callable[[float], float], y: int) -> str:
    line = f'<path class="axis" d="M{MARGIN} {y}H{WIDTH - MARGIN}"/>'
    estimate = SeedEstimate.of(values)
    if estimate is None:
        return line
    low, high = map(x, estimate.interval if estimate.seeds > 1 else (estimate.mean, estimate.mean))
    dots = "".join(f'<circle cx="{x(value):.1f}" cy="{y}" r="2" fill="{SEED}"/>' for value in values.values())
    return (
        f'{line}<path d="M{low:.1f} {y}H{high:.1f}" stroke="{MEAN}" stroke-width="8" stroke-opacity="0.2"/>'
        f'<circle cx="{x(estimate.mean):.1f}" cy="{y}" r="4.5" fill="{MEAN}"/>{dots}'
    )
