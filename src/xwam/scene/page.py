"""One self-contained HTML page to look into 4D scenes: it opens from disk and asks no host for anything.

Several clips (predicted and true, models, seeds) share one clock and one eye. The page's own files lie in `page/`;
here their content is described: a description as JSON, and blobs of every frame (see `page_data`). A live viewer
(`live`) serves the same page without the blobs, which it hands out when they are asked for.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

import numpy as np
from jaxtyping import Float

from xwam.core.depth import InverseDepthAlignment
from xwam.core.files import write_atomically
from xwam.core.pictures import depth_range, jpeg, viridis
from xwam.core.types import RGBDClip, WorldClip
from xwam.scene.flow import can_flow, streaks
from xwam.scene.page_data import REACH, STEPS_PER_E, encode_depth, pack
from xwam.scene.stage import anchors, first_direction, workspace
from xwam.scene.surface import MAX_INCIDENCE_DEG, on_surface

SCRIPTS = ("data.js", "orbit.js", "points.js", "strips.js", "plots.js", "tables.js", "stage.js", "page.js")
IMAGINED_COLOURS = ("#6c5ce7", "#e0703c", "#0f9d94", "#d6408a", "#b98a00", "#3d8bfd")
TRUE_COLOURS = ("#7b8698", "#4f5b6d", "#a3adbb")
FRUSTUM_SHARE = 0.1
"""How long a camera's frustum is drawn, of the longest edge of the box that is shown."""
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src {}"


@dataclass(frozen=True)
class Score:
    """One line of the table of scores: a number for each clip, in their order; None where it is not known.

    `baseline` is what doing nothing scores: repeating the given frame.
    """

    name: str
    values: tuple[float | None, ...]
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class PageContent:
    """What a page shows: clips by their labels, and the box of the base frame to look at (see `stage.workspace`).

    Raises ValueError if there is no clip, or a score that has not one value for each.
    """

    clips: dict[str, WorldClip]
    title: str = ""
    bounds_m: Float[np.ndarray, "2 3"] | None = None
    scores: tuple[Score, ...] = ()

    def __post_init__(self):
        if not self.clips:
            raise ValueError("no clip to show: give one or more")
        for score in self.scores:
            if len(score.values) != len(self.clips):
                raise ValueError(f"score {score.name!r} has {len(score.values)} values for {len(self.clips)} clips")

    @property
    def scenes(self) -> list[RGBDClip]:
        return [clip.scene for clip in self.clips.values()]


def write_page(path: Path, content: PageContent) -> Path:
    """Writes the page, with every frame inside."""
    elements = []
    for name, blob in _blobs(content.scenes):
        text = base64.b64encode(blob).decode("ascii")
        elements.append(f'<script type="application/octet-stream" id="{name}">{text}</script>')
    html = page(content, "\n".join(elements), live=False)
    write_atomically(path, lambda file: file.write_text(html, encoding="utf-8"))
    return path


def page(content: PageContent, blobs: str, live: bool) -> str:
    """The page's HTML; a live one fetches the blobs from where it came from, the other may fetch nothing at all."""
    return Template(_asset("page.html")).substitute(
        title=escape(content.title or "4D scene"),
        policy=POLICY.format("'self'" if live else "'none'"),
        css=_asset("page.css"),
        js="\n".join(_asset(name) for name in SCRIPTS),
        scene=_json(describe(content) | {"live": live}),
        blobs=blobs,
    )


def _blobs(scenes: list[RGBDClip]) -> Iterator[tuple[str, bytes]]:
    """Every blob of a page by its name: what it is, then clip, view and frame."""
    for number, scene in enumerate(scenes):
        nearest_m = nearest(scene)
        for view, frame in np.ndindex(*scene.rgb.shape[:2]):
            yield f"rgb-{number}-{view}-{frame}", picture_blob(scene, view, frame)
            yield f"depth-{number}-{view}-{frame}", depth_blob(scene, view, frame, nearest_m)
            if can_flow(scene):
                yield f"flow-{number}-{view}-{frame}", flow_blob(scene, view, frame)


def picture_blob(scene: RGBDClip, view: int, frame: int) -> bytes:
    """What a camera sees, as a JPEG."""
    return jpeg(scene.rgb[view, frame])


def depth_blob(scene: RGBDClip, view: int, frame: int, nearest_m: float) -> bytes:
    """A camera's depth and the flags of its pixels (see `page_data.pack`)."""
    depth_m = scene.depth_m[view, frame]
    surface = on_surface(depth_m[None], scene.intrinsics[view, frame][None], MAX_INCIDENCE_DEG)[0]
    layers = None if scene.layers is None else scene.layers[view, frame]
    return pack(encode_depth(depth_m, nearest_m), surface, layers)


def flow_blob(scene: RGBDClip, view: int, frame: int) -> bytes:
    """Streaks of what moves until the next frame: six floats each, where it is and where it will be."""
    return streaks(scene, view, frame).astype("<f4").tobytes()


def nearest(scene: RGBDClip) -> float:
    """The depth at which a clip's codes begin: that of its nearest pixel, if its farthest then still has a code."""
    known = scene.depth_m[np.isfinite(scene.depth_m) & (scene.depth_m > 0)]
    return float(max(known.min(), known.max() / REACH)) if known.size else 1.0


def describe(content: PageContent) -> dict:
    """All that the page knows but for pictures and depth, fit for JSON."""
    clips = content.clips.values()
    # What is true tells best what there is to see.
    first = next((clip for clip in clips if clip.origin != "imagined"), next(iter(clips))).scene
    bounds_m = workspace(first) if content.bounds_m is None else content.bounds_m
    instructions = dict.fromkeys(clip.instruction for clip in clips if clip.instruction)
    colours = _colours(content)
    return {
        "instruction": next(iter(instructions)) if len(instructions) == 1 else "",
        "stepsPerE": STEPS_PER_E,
        "bounds": bounds_m.tolist(),
        "anchors": np.round(anchors(first, bounds_m), 4).tolist(),
        "forward": first_direction(first).tolist(),
        "frustum": FRUSTUM_SHARE * float(np.max(bounds_m[1] - bounds_m[0])),
        "depthColours": [bytes(colour).hex() for colour in viridis(np.linspace(1, 0, 256))],
        "clips": [_describe_clip(label, clip) | {"colour": colours[label]} for label, clip in content.clips.items()],
        "scores": [
            asdict(score) | {"values": _numbers(np.array(score.values, dtype=float))} for score in content.scores
        ],
    }


def _describe_clip(label: str, clip: WorldClip) -> dict:
    scene = clip.scene
    _, frames, height, width, _ = scene.rgb.shape
    action_period_s = clip.action_period_s
    if clip.actions is not None and action_period_s is None:
        action_period_s = scene.period_s * (frames - 1) / len(clip.actions)
    focal_and_centre = scene.intrinsics[..., [0, 1, 0, 1], [0, 1, 2, 2]]
    return {
        "label": label,
        "origin": clip.origin,
        "instruction": clip.instruction,
        "scale": scene.depth_scale,
        "period": scene.period_s,
        "frames": frames,
        "height": height,
        "width": width,
        "cameras": list(scene.cameras),
        "nearest": nearest(scene),
        "intrinsics": np.round(focal_and_centre, 4).tolist(),
        # column-major, as WebGL has matrices
        "poses": np.round(np.swapaxes(scene.T_base_cam, -1, -2).reshape(len(scene.cameras), frames, 16), 6).tolist(),
        "moving": (~scene.standing()).tolist(),
        "layers": scene.layers is not None,
        "flow": can_flow(scene),
        "depthRanges": [depth_range(depth_m) for depth_m in scene.depth_m],
        "seams": list(clip.seams),
        "about": clip.about,
        "alignments": [f"{camera}: {_told(fit)}" for camera, fit in clip.alignments.items()],
        "actions": _vectors("action", clip.actions, action_period_s, clip.action_names, clip.action_units),
        "states": _vectors("state", clip.proprio, scene.period_s, clip.proprio_names, clip.proprio_units),
    }


def _told(fit: InverseDepthAlignment) -> str:
    return f"1/depth = {fit.scale:.4g} code {fit.shift:+.4g}, within {fit.residual:.2g} 1/m, {fit.kept:.0%} of pixels"


def _vectors(
    kind: str,
    values: Float[np.ndarray, "N D"] | None,
    period_s: float | None,
    names: tuple[str, ...],
    units: tuple[str, ...],
) -> dict | None:
    if values is None:
        return None
    names = names or tuple(f"{kind} {entry}" for entry in range(values.shape[1]))
    return {"names": names, "units": units, "period": period_s, "values": _numbers(values)}


def _colours(content: PageContent) -> dict[str, str]:
    """A colour for each label: strong ones for what was imagined, quiet ones for what is true."""
    of_origin = {True: 0, False: 0}
    colours = {}
    for label, clip in content.clips.items():
        palette = IMAGINED_COLOURS if (imagined := clip.origin == "imagined") else TRUE_COLOURS
        colours[label] = palette[of_origin[imagined] % len(palette)]
        of_origin[imagined] += 1
    return colours


def _numbers(values: Float[np.ndarray, "*n"]) -> list:
    """As lists with six digits; what is no number becomes null, since JSON knows no NaN."""
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _json(content: dict) -> str:
    """JSON that cannot end the element that it stands in, whatever text it holds."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _asset(name: str) -> str:
    return resources.files("xwam.scene").joinpath("page", name).read_text(encoding="utf-8")
