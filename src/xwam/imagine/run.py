"""`xwam imagine`: a folder for each future, one for what happened if that is known, and a page that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from xwam.core.types import WorldClip
from xwam.data.processes import progress_bar
from xwam.imagine.files import from_files, read_actions
from xwam.imagine.future import imagine_future
from xwam.imagine.present import Present, recorded, simulated
from xwam.scene.comparison import compare
from xwam.scene.folder import ABOUT, write_clip
from xwam.scene.page import PageContent, write_page
from xwam.scene.pose_error import wrist_pose_errors
from xwam.wam import WorldActionModel


@dataclass(frozen=True)
class Asked:
    """What a future is imagined from, how far, and how often: a recorded episode, else files, else a simulator.

    `seed` is that of the simulated episode and of the first dream, `actions` a file or, with `expert`, those that were
    taken. `chunks` None is 1, or as many as `actions` fill.
    """

    task: str
    instruction: str | None
    seed: int
    share: float = 0.3
    dataset: Path | None = None
    episode: int = 0
    row: int = 0
    images: tuple[str, ...] = ()
    depths: tuple[str, ...] = ()
    state: Path | None = None
    cameras: Path | None = None
    seeds: int = 1
    chunks: int | None = None
    actions: Path | None = None
    expert: bool = False

    def __post_init__(self):
        if self.dataset and self.images:
            raise ValueError("--dataset and --images: a future begins in one of them, give the other up")
        if self.images and not (self.state and self.cameras and self.instruction):
            raise ValueError("--images need --state, --cameras and --instruction beside them: `xwam imagine --help`")
        if not self.images and (self.state or self.cameras or self.depths):
            raise ValueError("--state, --cameras and --depths belong to --images: give CAMERA=FILE of each camera")
        if self.actions and self.expert:
            raise ValueError("--actions and --expert: actions come from one of them, give the other up")
        if self.images and self.expert:
            raise ValueError("--expert: nobody knows what an expert would do from images; give --actions")
        if self.seeds < 1 or (self.chunks is not None and self.chunks < 1):
            raise ValueError(f"--seeds {self.seeds} and --chunks {self.chunks}: give 1 or more")


def imagine_futures(checkpoint: Path, asked: Asked, out: Path, device: str = "cpu") -> None:
    """Imagines, writes `out`/seed-N (see scene.folder), `out`/true and `out`/index.html, and prints what they are.

    Clips that an earlier call left in `out` are removed: they would not belong to this truth.
    """
    model = WorldActionModel.load(checkpoint, device)
    given = read_actions(asked.actions, model.embodiment.action) if asked.actions else None
    chunks = asked.chunks or _chunks_of(model, given)
    present = _present_of(model, asked, chunks)
    actions = _experts(model, present, chunks) if asked.expert else given
    about = {"checkpoint": checkpoint.name, "from": present.name}
    for earlier in (path for path in (out / "true", *out.glob("seed-*")) if (path / ABOUT).is_file()):
        rmtree(earlier)
    dreams = []
    for clip in _imagined(model, present, asked, chunks, actions):
        dreams.append(replace(clip, about=about | clip.about | _pose_error(clip, present.truth)))
        write_clip(out / f"seed-{clip.about['seed']}", dreams[-1])
    if present.truth:
        write_clip(out / "true", present.truth)
    console = Console()
    console.print(_table(dreams, present.truth))
    for clip in dreams:
        if why := clip.about.get("not_aligned"):
            console.print(f"Depth of seed {clip.about['seed']} stays as the model gave it: {why}")
    if dreams[0].scene.depth_m.any():
        page = _page(out / "index.html", present, dreams)
        console.print(f"Open {page} in a browser; the clips are in {out}.", soft_wrap=True)
    else:
        console.print(f"The clips are in {out}; this model has no depth, so there is no page in 3D.", soft_wrap=True)


def _chunks_of(model: WorldActionModel, actions: Float[np.ndarray, "A D"] | None) -> int:
    """As many as the actions fill."""
    if actions is None:
        return 1
    if not len(actions) or len(actions) % model.config.actions:
        raise ValueError(f"{len(actions)} actions: give a multiple of {model.config.actions}, the chunk of this model")
    return len(actions) // model.config.actions


def _present_of(model: WorldActionModel, asked: Asked, chunks: int) -> Present:
    if asked.images:
        return from_files(model, asked.images, asked.state, asked.cameras, asked.instruction, asked.depths)
    if asked.dataset:
        return recorded(model, asked.dataset, asked.episode, asked.row, chunks, asked.instruction)
    return simulated(model, asked.task, asked.seed, asked.share, chunks, asked.instruction)


def _experts(model: WorldActionModel, present: Present, chunks: int) -> Float[np.ndarray, "A D"]:
    """The actions that were taken, if the episode has as many."""
    wanted, known = chunks * model.config.actions, len(present.truth.actions) if present.truth else 0
    if known < wanted:
        raise ValueError(
            f"--expert: {present.name} goes on for {known} actions, {chunks} chunks take {wanted}: "
            "begin earlier (--share, --row), or give fewer --chunks"
        )
    return present.truth.actions[:wanted]


def _imagined(
    model: WorldActionModel, present: Present, asked: Asked, chunks: int, actions: Float[np.ndarray, "A D"] | None
):
    with progress_bar() as progress:
        steps = asked.seeds * chunks * model.config.noise.video_steps
        bar = progress.add_task("Denoising", total=steps)
        for seed in range(asked.seed, asked.seed + asked.seeds):
            step = lambda *_: progress.advance(bar)  # noqa: E731
            yield imagine_future(model, present.observation, seed, chunks, actions, on_step=step)


# ---- what is told --------------------------------------------------------------------------------------------------


def _pose_error(clip: WorldClip, truth: WorldClip | None) -> dict[str, float]:
    """Mean error of the moving cameras' foretold poses, if the truth is known."""
    errors = wrist_pose_errors(clip.scene, truth.scene) if truth else {}
    means = {}
    for name, error in errors.items():
        means[f"{name}_position_error_mm"] = float(error.position_mm[1:].mean())
        means[f"{name}_angle_error_deg"] = float(error.angle_deg[1:].mean())
    return means


def _table(dreams: Sequence[WorldClip], truth: WorldClip | None) -> Table:
    table = Table("clip", "frames", "seams", "actions", "depth", "pose of moving cameras off by", title="Imagined")
    for clip in dreams:
        errors = wrist_pose_errors(clip.scene, truth.scene) if truth else {}
        told = "; ".join(f"{name} {error.told()}" for name, error in errors.items())
        frames, seams = str(clip.scene.rgb.shape[1]), ", ".join(map(str, clip.seams)) or "-"
        name, actions = f"seed-{clip.about['seed']}", str(clip.about["actions"])
        table.add_row(name, frames, seams, actions, _scale(clip), told or "not known")
    if truth:
        table.add_row("true", str(truth.scene.rgb.shape[1]), "-", truth.origin, _scale(truth), "-")
    return table


def _scale(clip: WorldClip) -> str:
    """What the depth is worth, and how well it was aligned."""
    scale = clip.scene.depth_scale
    if not clip.alignments:
        return scale
    how = "to the first frame" if scale == "aligned" else "views to each other"
    return f"{scale}, {how}: {', '.join(f'{name} {fit.residual:.3f} / m' for name, fit in clip.alignments.items())}"


def _page(path: Path, present: Present, dreams: Sequence[WorldClip]) -> Path:
    """All futures, and what happened if its depth is known, to look into."""
    clips = {f"seed {clip.about['seed']}": clip for clip in dreams}
    truth, scores = present.truth, ()
    if truth is not None and truth.scene.depth_m.any():
        clips["true"] = truth
        if truth.scene.depth_scale == "metric" and dreams[0].scene.depth_scale != "relative":
            scores = compare(clips)
    return write_page(path, PageContent(clips, title=present.name, scores=scores))
