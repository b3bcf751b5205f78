"""One page that shows what was reached: success, episodes, dreams beside reality, and the numbers behind them.

`index.html` holds everything inside (styles, scripts, pictures, videos) and asks no other host; each 4D scene lies
beside it as a page of its own. All text that comes from outside is escaped.
"""

from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.pictures import data_uri, depth_colours, depth_range, jpeg, viridis
from xwam.core.success import SuccessRate, pooled
from xwam.core.types import RGBDClip, WorldClip
from xwam.scene.estimates import Estimate
from xwam.scene.measures import MEASURES, Measure
from xwam.scene.page import PageContent, write_page
from xwam.scene.score import REGIONS


@dataclass(frozen=True)
class ReportEpisode:
    """One closed-loop episode and its mp4 file."""

    task: str
    success: bool
    video: Path


@dataclass(frozen=True)
class ReportDream:
    """What was imagined, and what then happened; `units` are those of the actions' entries."""

    task: str
    instruction: str
    true: RGBDClip
    predicted: RGBDClip
    predicted_actions: Float[np.ndarray, "A D"]
    executed_actions: Float[np.ndarray, "A D"]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    action_period_s: float
    bounds_m: Float[np.ndarray, "2 3"] | None = None

    def __post_init__(self):
        wanted = (*self.predicted_actions.shape[:1], len(self.action_names))
        for name in ("predicted_actions", "executed_actions"):
            if getattr(self, name).shape != wanted:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, {self.action_names} need {wanted}")
        if len(self.action_units) != len(self.action_names):
            raise ValueError(f"{len(self.action_units)} units for {len(self.action_names)} actions {self.action_names}")

    def page(self) -> PageContent:
        """Both, to look into."""
        driven = {
            "instruction": self.instruction,
            "action_period_s": self.action_period_s,
            "action_names": self.action_names,
            "action_units": self.action_units,
            "about": {"task": self.task},
        }
        true = WorldClip(self.true, "simulated", actions=self.executed_actions, **driven)
        imagined = WorldClip(self.predicted, "imagined", actions=self.predicted_actions, **driven)
        return PageContent({"true": true, "imagined": imagined}, self.task, self.bounds_m)


@dataclass(frozen=True)
class Report:
    """All that a page shows; what is empty is left out.

    `metrics` and `dummy` are `estimates.summarise` of the dreams and of repeating the last frame.
    """

    title: str
    explanation: str
    success: list[SuccessRate] = field(default_factory=list)
    episodes: list[ReportEpisode] = field(default_factory=list)
    dreams: list[ReportDream] = field(default_factory=list)
    metrics: dict[str, Estimate] = field(default_factory=dict)
    dummy: dict[str, Estimate] = field(default_factory=dict)

    def __post_init__(self):
        if self.metrics.keys() != self.dummy.keys():
            raise ValueError(
                f"metrics hold {len(self.metrics)} numbers, those of the dummy {len(self.dummy)}: summarise both, the "
                "dummy from `repeat_last_frame` of the same truths"
            )


def write_report(path: Path, report: Report) -> Path:
    """Writes the page, and `scene-N.html` beside it for the N-th dream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scenes = []
    for number, dream in enumerate(report.dreams, start=1):
        scenes.append(write_page(path.parent / f"scene-{number}.html", dream.page()).name)
    sections = [_tiles(report)]
    if report.success:
        sections.append(_success(report.success))
    if report.episodes:
        sections.append(_episodes(report.episodes))
    if report.dreams:
        sections.append(_dreams(report.dreams, scenes))
    if report.metrics:
        sections.append(_metrics(report.metrics, report.dummy))
    page = Template(_asset("report.html")).substitute(
        title=escape(report.title),
        explanation=escape(report.explanation),
        css=_asset("report.css"),
        js=_asset("report.js"),
        sections="\n".join(sections),
    )
    path.write_text(page, encoding="utf-8")
    return path


def _asset(name: str) -> str:
    return resources.files("xwam.scene").joinpath(name).read_text(encoding="utf-8")


# --- what comes first: three numbers


def _tiles(report: Report) -> str:
    tiles = []
    if report.success:
        total = pooled(report.success, "All tasks")
        low, high = total.interval
        detail = f"{total.successes} of {total.episodes} episodes, 95% interval {low:.0%} to {high:.0%}"
        tiles.append(_tile("Closed-loop success", f"{total.rate:.0%}", detail))
    for measure in (m for m in MEASURES if m.key in (SHOWN[0], SHOWN[-1]) and report.metrics):
        key = f"changed/{measure.key}"
        detail = f"repeating the last frame: {measure.text(report.dummy[key].mean)}"
        tiles.append(_tile(f"{measure.name}, where the scene changed", measure.text(report.metrics[key].mean), detail))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(name: str, value: str, detail: str) -> str:
    return (
        f'<div class="card tile"><div class="name">{name}</div><div class="value">{value}</div>'
        f'<div class="detail">{detail}</div></div>'
    )


# --- success


def _success(rows: list[SuccessRate]) -> str:
    body = "".join(_success_row(row) for row in rows)
    if len(rows) > 1:
        body += _success_row(pooled(rows, "All tasks"), "total")
    return f"""<section><h2>Success in closed loop</h2>
<p class="note">The policy acts in the simulator until it succeeds or time is up. Bars show the rate, lines its Wilson
95% interval.</p><div class="card scroll"><table>
<thead><tr><th>Task</th><th></th><th>Successes</th><th>Rate</th><th>95% interval</th></tr></thead>
<tbody>{body}</tbody></table></div></section>"""


def _success_row(row: SuccessRate, style: str = "") -> str:
    low, high = row.interval
    return f"""<tr class="{style}"><td>{escape(row.task)}</td><td class="meter">
<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">
<rect width="100" height="14" rx="1" fill="var(--track)"/>
<rect width="{100 * row.rate:.1f}" height="14" rx="1" fill="var(--imagined)" opacity="0.55"/>
<rect x="{100 * low:.1f}" y="6" width="{100 * (high - low):.1f}" height="2" fill="var(--ink)"/></svg></td>
<td>{row.successes} / {row.episodes}</td><td>{row.rate:.0%}</td><td>{low:.0%} to {high:.0%}</td></tr>"""


def _episodes(episodes: list[ReportEpisode]) -> str:
    figures = "".join(_episode(episode) for episode in episodes)
    return f"""<section><h2>Episodes</h2><p class="note">All cameras of each, side by side.</p>
<div class="videos">{figures}</div></section>"""


def _episode(episode: ReportEpisode) -> str:
    result = '<b class="better">success</b>' if episode.success else '<b class="worse">failure</b>'
    source = data_uri("video/mp4", episode.video.read_bytes())
    return f"""<figure><video src="{source}" controls loop muted playsinline preload="auto"></video>
<figcaption><span>{escape(episode.task)}</span>{result}</figcaption></figure>"""


# --- dreams


def _dreams(dreams: list[ReportDream], scenes: list[str]) -> str:
    cards = "".join(_dream(dream, scene) for dream, scene in zip(dreams, scenes, strict=True))
    return f"""<section><h2>Imagined and real</h2>
<p class="note">From the first frame, the instruction and the robot's state, the model imagines colour, depth and its
own actions; beside it stands what happened when the executed actions ran.</p>{cards}</section>"""


def _dream(dream: ReportDream, scene: str) -> str:
    last = dream.true.rgb.shape[1] - 1
    plots = "".join(_plot(dream, entry) for entry in range(len(dream.action_names)))
    views = "".join(_view(dream, view) for view in range(len(dream.true.cameras)))
    return f"""<article class="card dream" data-period="{dream.true.period_s}">
<h2>{escape(dream.task)}</h2><p class="instruction">“{escape(dream.instruction)}”</p>
<div class="controls"><button type="button">Play</button>
<input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="Time"><output></output></div>
<div class="views">{views}</div>
<h3>Actions <span class="legend">{_key("executed")}{_key("predicted")}</span></h3>
<div class="plots">{plots}</div>
<h3>4D scene <span class="legend">drag to turn, click and scroll to come closer, <a href="{scene}">open alone</a> with
all controls</span></h3>
<iframe src="{scene}#stage" loading="lazy" title="4D scene: {escape(dream.task)}"></iframe></article>"""


def _view(dream: ReportDream, view: int) -> str:
    """One camera: colour and depth, real and imagined side by side, and the scale of depth under them."""
    camera = dream.true.cameras[view]
    near_m, far_m = depth_range(dream.true.depth_m[view])
    cells = ['<b class="real">real</b>', '<b class="imagined">imagined</b>']
    for kind in ("colour", "depth"):
        for who, clip in (("real", dream.true), ("imagined", dream.predicted)):
            frames = clip.rgb[view] if kind == "colour" else depth_colours(clip.depth_m[view], near_m, far_m)
            cells.append(_canvas(frames, f"{who} {kind}, camera {camera}"))
    stops = ", ".join("rgb({}, {}, {})".format(*colour) for colour in viridis(np.linspace(1, 0, 11)))
    bar = f'<i style="background: linear-gradient(to right, {stops})"></i>'
    scale = f'<div class="scale">depth {near_m:.2f} m{bar}{far_m:.2f} m</div>'
    return f'<div class="view"><div class="camera">{escape(camera)}</div>{"".join(cells)}{scale}</div>'


def _canvas(frames: UInt8[np.ndarray, "T H W 3"], label: str) -> str:
    """A canvas over a sheet of all frames, side by side."""
    _, height, width, _ = frames.shape
    sheet = data_uri("image/jpeg", jpeg(np.concatenate(list(frames), axis=1)))
    size = f'width="{width}" height="{height}"'
    return f'<canvas {size} role="img" aria-label="{escape(label)}" data-sheet="{sheet}"></canvas>'


def _key(curve: str) -> str:
    return f'<svg viewBox="0 0 26 8"><polyline class="{curve}" points="0,4 26,4"/></svg>{curve}'


def _plot(dream: ReportDream, entry: int) -> str:
    """One entry of the actions over time: executed and predicted, on one scale."""
    curves = {"executed": dream.executed_actions[:, entry], "predicted": dream.predicted_actions[:, entry]}
    low = min(curve.min() for curve in curves.values())
    high = max(curve.max() for curve in curves.values())
    span = max(high - low, 1e-6)
    left, right, top, bottom = 40, 296, 8, 92

    def height(value: float) -> float:
        return bottom - (value - low) / span * (bottom - top)

    lines = []
    for name, curve in curves.items():
        xs = np.linspace(left, right, len(curve)) if len(curve) > 1 else np.array([left])
        points = " ".join(f"{x:.1f},{height(y):.1f}" for x, y in zip(xs, curve, strict=True))
        lines.append(f'<polyline class="{name}" points="{points}"/>')
    end_s = (len(dream.executed_actions) - 1) * dream.action_period_s
    ticks = [(left - 5, top + 4, "end", f"{high:.2g}"), (left - 5, bottom + 3, "end", f"{low:.2g}")]
    ticks += [(left, 106, "start", "0 s"), (right, 106, "end", f"{end_s:.1f} s")]
    texts = "".join(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in ticks)
    name, unit = escape(dream.action_names[entry]), escape(dream.action_units[entry])
    return f"""<figure><div class="name">{name} <span>[{unit}]</span></div>
<svg viewBox="0 0 300 110" aria-hidden="true">
<path class="axis" fill="none" d="M{left} {top}V{bottom}H{right}"/>{"".join(lines)}{texts}</svg></figure>"""


# --- metrics


SHOWN = ("static/psnr_db", "static/ssim", "every/abs_rel", "every/delta1", "every/chamfer_m")


def _metrics(metrics: dict[str, Estimate], dummy: dict[str, Estimate]) -> str:
    heads = "<th>Imagined</th><th>Repeated</th><th></th>" * len(REGIONS)
    rows = "".join(_metric_row(measure, metrics, dummy) for measure in MEASURES if measure.key in SHOWN)
    return f"""<section><h2>Dreams in numbers</h2>
<p class="note">Means over {max(estimate.count for estimate in metrics.values())} episodes with bootstrap 95% intervals,
against a dummy that repeats the last frame it saw. Most pixels never move, so the dummy does well on all of them; the
changed ones (colour by more than 20 of 255 or depth by more than 1 cm since the first frame) tell. PSNR and SSIM are
those of the static cameras. ▲ better than the dummy, ▼ worse, pale where the interval holds the dummy's mean.</p>
<div class="card scroll"><table><thead><tr><th></th><th class="group" colspan="3">Changed pixels</th>
<th class="group" colspan="3">All pixels</th></tr><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>
</section>"""


def _metric_row(measure: Measure, metrics: dict[str, Estimate], dummy: dict[str, Estimate]) -> str:
    way = "↑" if measure.higher_is_better else "↓"
    unit = f", {measure.unit}" if measure.unit else ""
    cells = [f"<td>{measure.name}{unit} {way}</td>"]
    for region in REGIONS:
        ours, theirs = metrics[f"{region}/{measure.key}"], dummy[f"{region}/{measure.key}"]
        interval = f"{measure.text(ours.low, unit=False)} to {measure.text(ours.high, unit=False)}"
        cells.append(f"<td>{measure.text(ours.mean, unit=False)}<small>{interval}</small></td>")
        cells.append(f"<td>{measure.text(theirs.mean, unit=False)}</td><td>{_mark(measure, ours, theirs)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _mark(measure: Measure, ours: Estimate, theirs: Estimate) -> str:
    if np.isnan(ours.mean) or np.isnan(theirs.mean) or ours.mean == theirs.mean:
        return ""
    better = (ours.mean > theirs.mean) == measure.higher_is_better
    unsure = " unsure" if ours.low <= theirs.mean <= ours.high else ""
    word, sign = ("better", "▲") if better else ("worse", "▼")
    return f'<span class="mark {word}{unsure}" title="{word}" aria-label="{word}">{sign}</span>'
