"""What people look at first: episodes in closed loop, imagined futures, and the page that shows both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from xwam.core.success import SuccessRate
from xwam.evaluate import (
    FIRST_DREAM_SEED,
    Imagined,
    dream_table,
    evaluate_dreams,
    evaluate_success,
    success_of,
    success_table,
    write_film,
)
from xwam.scene.estimates import Estimate, summarise
from xwam.scene.report import Report, ReportDream, ReportEpisode, write_report
from xwam.sim.rollout import Rollout

DEMO_TASKS = ("metaworld/reach-v3", "metaworld/drawer-open-v3", "metaworld/button-press-topdown-v3")
EXECUTE = 8
# The base frame's box that the 4D scene shows: the table and what is above it, in metres.
BOUNDS_M = np.array([[-0.5, 0.3, -0.05], [0.5, 1.1, 0.6]])
EXPLANATION = (
    "A world action model looks at three cameras, its own state and an instruction, and denoises its next actions "
    "together with the next frames of every camera, in colour and depth. Everything here was computed on this machine, "
    "in episodes that training never saw: first the robot acting in closed loop, then futures that the model imagined, "
    "beside what happened when the expert went on."
)


def run_demo(checkpoint: Path, episodes: int, out: Path, seed: int, workers: int) -> None:
    """Acts, imagines, measures, and writes `out`/index.html."""
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    seeds = range(seed, seed + episodes)
    rollouts = evaluate_success(checkpoint, DEMO_TASKS, seeds, EXECUTE, workers, filmed=episodes)
    success = success_of(rollouts, DEMO_TASKS)
    console.print(success_table(success))
    imagined, repeated = evaluate_dreams(checkpoint, DEMO_TASKS, [FIRST_DREAM_SEED + seed], workers)
    model, dummy = summarise([i.scores for i in imagined]), summarise(repeated)
    console.print(dream_table(model, dummy))
    films = [_film(out, done) for done in rollouts]
    page = _write(out, imagined[1::3], success, films, model, dummy)
    console.print(f"Open {page} in a browser.")


def _film(out: Path, done: Rollout) -> ReportEpisode:
    path = out / f"{done.environment.replace('/', '_')}_{done.seed}.mp4"
    write_film(path, done.frames)
    return ReportEpisode(done.environment, done.success, path)


def _write(
    out: Path,
    imagined: Sequence[Imagined],
    success: list[SuccessRate],
    films: list[ReportEpisode],
    model: dict[str, Estimate],
    dummy: dict[str, Estimate],
) -> Path:
    dreams = [_shown(one) for one in imagined]
    title = "xwam: a robot acts, and what it imagines"
    return write_report(out / "index.html", Report(title, EXPLANATION, success, films, dreams, model, dummy))


def _shown(imagined: Imagined) -> ReportDream:
    true = imagined.moment.truth
    return ReportDream(
        task=true.about["task"],
        instruction=true.instruction,
        true=true.scene,
        predicted=imagined.dream.scene,
        predicted_actions=imagined.dream.chunk.actions,
        executed_actions=true.actions,
        action_names=true.action_names,
        action_units=true.action_units,
        action_period_s=imagined.dream.chunk.period_s,
        bounds_m=BOUNDS_M,
    )
