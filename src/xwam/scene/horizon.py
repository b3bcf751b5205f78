"""Measures over the frames of the future as one picture, an SVG: how fast a prediction goes wrong."""

from collections.abc import Sequence
from html import escape

import numpy as np

from xwam.scene.estimates import Estimate
from xwam.scene.measures import Measure
from xwam.scene.score import Region
from xwam.scene.scoreboard import Scoreboard

# Okabe and Ito's colours, which the colour-blind tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH, HEIGHT, COLUMNS, TOP = 300, 200, 3, 34  # of a panel; panels beside each other; the legend above
LEFT, RIGHT, UPPER, LOWER = 46, 12, 34, 24  # margins around a panel's axes
STYLE = "text{font:12px sans-serif;fill:#222}.tick{font-size:10px;fill:#666}.axis{stroke:#ccc;fill:none}"


def draw(board: Scoreboard, regions: Sequence[Region] = ("all", "changed")) -> str:
    """A panel for each measure of each region: a line a column over time, its 95% interval pale behind it."""
    panels = [(region, measure) for region in regions for measure in board.measures(region)]
    colours = dict(zip(board.columns, COLOURS * len(board.columns), strict=False))
    width, height = COLUMNS * WIDTH, TOP + HEIGHT * -(-len(panels) // COLUMNS)
    drawn = [_panel(board, *panel, _corner(k), colours) for k, panel in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>{_legend(colours)}'
        f"{''.join(drawn)}</svg>\n"
    )


def _corner(panel: int) -> tuple[int, int]:
    return WIDTH * (panel % COLUMNS), TOP + HEIGHT * (panel // COLUMNS)


def _legend(colours: dict[str, str]) -> str:
    x, marks = 12.0, []
    for name, colour in colours.items():
        marks.append(f'<path d="M{x:.0f} 18h18" stroke="{colour}" stroke-width="3"/>')
        marks.append(f'<text x="{x + 24:.0f}" y="22">{escape(name)}</text>')
        x += 44 + 7 * len(name)
    return "".join(marks)


def _panel(
    board: Scoreboard, region: Region, measure: Measure, corner: tuple[int, int], colours: dict[str, str]
) -> str:
    key = f"{region}/{measure.key}"
    curves = {name: steps[key] for name, steps in board.steps.items() if key in steps}
    ends = measure.scale * np.array([(one.low, one.high) for curve in curves.values() for one in curve])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    spare = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = max(low - spare, 0.0) if low >= 0 else low - spare, high + spare
    frames = max(len(curve) for curve in curves.values())

    def place(frame: int, value: float) -> str:
        x = corner[0] + LEFT + (WIDTH - LEFT - RIGHT) * (frame / max(frames - 1, 1))
        y = corner[1] + UPPER + (HEIGHT - UPPER - LOWER) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    lines = [_curve(curve, measure.scale, colours[name], place) for name, curve in curves.items()]
    return _axes(measure, region, corner, (low, high), board.period_s, frames) + "".join(lines)


def _curve(curve: list[Estimate], scale: float, colour: str, place) -> str:
    known = [(k, one) for k, one in enumerate(curve) if one.count]
    upper = [place(k, scale * one.high) for k, one in known]
    lower = [place(k, scale * one.low) for k, one in reversed(known)]
    middle = [place(k, scale * one.mean) for k, one in known]
    dots = "".join('<circle cx="{}" cy="{}" r="2.5" fill="{}"/>'.format(*at.split(","), colour) for at in middle)
    return (
        f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="0.15"/>'
        f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
    )


def _axes(
    measure: Measure, region: Region, corner: tuple[int, int], span: tuple[float, float], period_s: float, frames: int
) -> str:
    left, right = corner[0] + LEFT, corner[0] + WIDTH - RIGHT
    upper, lower = corner[1] + UPPER, corner[1] + HEIGHT - LOWER
    title = escape(measure.title + (", what changed" if region == "changed" else ""))
    ticks = [f'<text x="{left - 6}" y="{upper + 4}" text-anchor="end" class="tick">{span[1]:.3g}</text>']
    ticks.append(f'<text x="{left - 6}" y="{lower + 3}" text-anchor="end" class="tick">{span[0]:.3g}</text>')
    ticks.append(f'<text x="{left}" y="{lower + 15}" class="tick">{1000 * period_s:.0f} ms</text>')
    end = f"{1000 * period_s * frames:.0f} ms"
    ticks.append(f'<text x="{right}" y="{lower + 15}" text-anchor="end" class="tick">{end}</text>')
    return (
        f'<text x="{left}" y="{upper - 10}">{title}</text>'
        f'<path class="axis" d="M{left} {upper}V{lower}H{right}"/>{"".join(ticks)}'
    )
