"""How good a model is: success in closed loop, and imagined futures against the truth."""

import atexit
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console
from rich.table import Table

from xwam.core.files import write_json
from xwam.core.success import SuccessRate, pooled
from xwam.core.types import Dream
from xwam.core.video import VideoWriter
from xwam.data.processes import in_processes, progress_bar
from xwam.imagine.choosing import BestOf
from xwam.imagine.present import Present, moments_of
from xwam.policy.policy import ChunkQueue, ModelPolicy
from xwam.saved import described
from xwam.scene.baselines import repeat_last_frame
from xwam.scene.estimates import Estimate, summarise
from xwam.scene.score import ClipScores, Truth
from xwam.sim.env import Environment, difficulties_of, make_environment
from xwam.sim.record import FIRST_EVALUATION_SEED
from xwam.sim.rollout import Rollout, rollout
from xwam.wam import WorldActionModel

# Dreams start from other episodes than closed-loop evaluation plays.
FIRST_DREAM_SEED = 2 * FIRST_EVALUATION_SEED
HIGHER_IS_BETTER = ("psnr_db", "ssim", "delta1", "f_score_1cm", "f_score_5cm")
MOMENT_SHARES = (0.1, 0.5, 0.9)
# A frame each 4 steps of 12.5 ms is 20 a second.
FILM_EVERY, FILM_FPS = 4, 20


@dataclass(frozen=True)
class Job:
    """One episode for one process; `action_steps` is that of `WorldActionModel.act`, `best_of` chooses by `BestOf`."""

    checkpoint: Path
    task: str
    seed: int
    execute: int
    film_every: int | None = None
    device: str = "cpu"
    action_steps: int | None = None
    best_of: int = 1


def evaluate_success(
    checkpoint: Path,
    tasks: Sequence[str],
    seeds: Sequence[int],
    execute: int,
    workers: int,
    filmed: int = 1,
    device: str = "cpu",
    best_of: int = 1,
) -> list[Rollout]:
    """An episode of each task for each seed; the first `filmed` of each task keep their pictures."""
    jobs = [
        Job(checkpoint, task, seed, execute, FILM_EVERY if place < filmed else None, device, best_of=best_of)
        for place, seed in enumerate(seeds)
        for task in tasks
    ]
    done: list[Rollout] = []
    with progress_bar() as progress:
        bar = progress.add_task("Episodes", total=len(jobs))
        for result in in_processes(workers, single_threaded)(play, [(job,) for job in jobs]):
            done.append(result)
            solved = sum(r.success for r in done)
            progress.update(bar, advance=1, description=f"Episodes ({solved} of {len(done)} solved)")
    return sorted(done, key=lambda r: (r.environment, r.seed))


def success_of(rollouts: Sequence[Rollout], tasks: Sequence[str]) -> list[SuccessRate]:
    """Successes counted by task."""
    won = {task: [r.success for r in rollouts if r.environment == task] for task in tasks}
    return [SuccessRate(task, sum(results), len(results)) for task, results in won.items()]


def single_threaded() -> None:
    """Several processes with several threads each would fight over the cores."""
    torch.set_num_threads(1)


@cache
def loaded(checkpoint: Path, device: str) -> WorldActionModel:
    return WorldActionModel.load(checkpoint, device)


@cache
def _environment(task: str, height: int, width: int) -> Environment:
    environment = make_environment(task, height, width)
    atexit.register(environment.close)
    return environment


def opened(job: Job) -> tuple[WorldActionModel, Environment]:
    model = loaded(job.checkpoint, job.device)
    environment = _environment(job.task, *model.config.image_size)
    environment.embodiment.check_same_robot(model.embodiment)
    return model, environment


def play(job: Job) -> Rollout:
    """A model's episode in closed loop."""
    model, environment = opened(job)
    act = partial(model.act, action_steps=job.action_steps) if job.best_of == 1 else BestOf(model, job.best_of)
    queue = ChunkQueue(ModelPolicy(act, job.seed), job.execute)
    return rollout(environment, queue, job.seed, film_every=job.film_every)


# ---- imagined futures ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imagined:
    """A moment's imagined future, and how it compares with what happened."""

    moment: Present
    dream: Dream
    scores: ClipScores


def evaluate_dreams(
    checkpoint: Path, tasks: Sequence[str], seeds: Sequence[int], workers: int, device: str = "cpu"
) -> tuple[list[Imagined], list[ClipScores]]:
    """Imagines three moments in an undisturbed expert episode of every task for each seed.

    Second are the scores, in the same moments, of a dummy that repeats the last frame.
    """
    jobs = [Job(checkpoint, task, seed, execute=1, device=device) for seed in seeds for task in tasks]
    imagined, repeated = [], []
    with progress_bar() as progress:
        bar = progress.add_task("Dreams", total=len(jobs))
        for dreams, dummies in in_processes(workers, single_threaded)(_dream_and_repeat, [(job,) for job in jobs]):
            imagined.extend(dreams)
            repeated.extend(dummies)
            progress.advance(bar)
    return imagined, repeated


def dream(job: Job) -> list[Imagined]:
    """Three moments of an expert's episode, each imagined."""
    return _dream(job, _judged_moments(job))


def repeat(job: Job) -> list[ClipScores]:
    """The scores of the dummy in the moments of `dream`."""
    return _repeat(_judged_moments(job))


def _dream_and_repeat(job: Job) -> tuple[list[Imagined], list[ClipScores]]:
    moments = _judged_moments(job)
    return _dream(job, moments), _repeat(moments)


def _judged_moments(job: Job) -> list[tuple[Present, Truth]]:
    model, environment = opened(job)
    moments = moments_of(model, environment, job.seed, MOMENT_SHARES)
    still = model.embodiment.still_cameras
    return [(moment, Truth(moment.truth.scene, still, episode=moment.truth.episode)) for moment in moments]


def _dream(job: Job, moments: Sequence[tuple[Present, Truth]]) -> list[Imagined]:
    model = loaded(job.checkpoint, job.device)
    dreams = [model.imagine(moment.observation, job.seed, action_steps=job.action_steps) for moment, _ in moments]
    return [Imagined(moment, one, truth.score(one.scene)) for (moment, truth), one in zip(moments, dreams, strict=True)]


def _repeat(moments: Sequence[tuple[Present, Truth]]) -> list[ClipScores]:
    return [truth.score(repeat_last_frame(truth.scene)) for _, truth in moments]


# ---- the verb --------------------------------------------------------------------------------------------------


def evaluate(
    checkpoint: Path,
    tasks: Sequence[str],
    episodes: int,
    dreams: int,
    out: Path,
    execute: int,
    workers: int,
    device: str = "cpu",
    best_of: int = 1,
) -> None:
    """Measures, prints two tables, and writes results.json and a video of each task's first episode."""
    out.mkdir(parents=True, exist_ok=True)
    console, results = Console(), {"checkpoint": described(checkpoint)["provenance"], "execute": execute}
    results |= {"best_of": best_of} if best_of > 1 else {}
    if episodes:
        seeds = range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + episodes)
        rollouts = evaluate_success(checkpoint, tasks, seeds, execute, workers, device=device, best_of=best_of)
        table = success_of(rollouts, tasks)
        levels = by_difficulty(table)
        console.print(success_table(table, levels))
        results["success"] = [{**asdict(row), "interval": row.interval} for row in table]
        if levels:
            results["difficulties"] = [{**asdict(row), "interval": row.interval} for row in levels]
        results["episodes"] = [{"task": r.environment, "seed": r.seed, "success": r.success} for r in rollouts]
        for done in rollouts:
            if done.frames:
                write_film(out / f"{done.environment.replace('/', '_')}_{done.seed}.mp4", done.frames)
    if dreams:
        seeds = range(FIRST_DREAM_SEED, FIRST_DREAM_SEED + dreams)
        imagined, repeated = evaluate_dreams(checkpoint, tasks, seeds, workers, device)
        model, dummy = summarise([i.scores for i in imagined]), summarise(repeated)
        console.print(dream_table(model, dummy))
        results["dreams"] = {name: {"model": asdict(model[name]), "dummy": asdict(dummy[name])} for name in model}
    write_json(out / "results.json", results)
    console.print(f"Written: {out / 'results.json'}")


def write_film(path: Path, frames: dict[str, UInt8[np.ndarray, "T H W 3"]]) -> None:
    """A video of all cameras side by side, at the speed of the robot."""
    wall = np.concatenate(list(frames.values()), axis=2)
    film = VideoWriter(path, *wall.shape[1:3], fps=FILM_FPS)
    film.add(wall)
    film.close()


def by_difficulty(rows: Sequence[SuccessRate]) -> list[SuccessRate]:
    """The success of each difficulty, where the tasks are the whole of a benchmark that is told so."""
    levels = difficulties_of([row.task for row in rows])
    return [pooled([row for row in rows if row.task in tasks], level) for level, tasks in levels.items()]


def success_table(rows: Sequence[SuccessRate], levels: Sequence[SuccessRate] = ()) -> Table:
    """The success of each task, and the mean over tasks with the interval of all episodes together.

    With difficulties also that of each, and their mean: SmolVLA (arXiv 2506.01844) calls that the average of MT50.
    """
    table = Table("task", "success", "episodes", "95% interval", title="Closed loop, unseen seeds")
    for row in (*rows, *levels, pooled(rows, "mean")):
        low, high = row.interval
        table.add_row(row.task, f"{row.rate:.1%}", f"{row.successes}/{row.episodes}", f"{low:.0%} .. {high:.0%}")
    if levels:
        table.add_row("mean of difficulties", f"{fmean(level.rate for level in levels):.1%}", "", "")
    return table


def dream_table(model: dict[str, Estimate], dummy: dict[str, Estimate]) -> Table:
    """Each measure of the imagined futures beside that of repeating the last frame."""
    table = Table("pixels", "views", "measure", "model (95% interval)", "repeat last frame", "better", title="Dreams")
    for name, estimate in model.items():
        region, views, measure = name.split("/")
        if views not in ("static", "every") or np.isnan(dummy[name].mean):
            continue
        better = (estimate.mean > dummy[name].mean) == (measure in HIGHER_IS_BETTER)
        interval = f"{estimate.mean:.3f} ({estimate.low:.3f} .. {estimate.high:.3f})"
        table.add_row(region, views, measure, interval, f"{dummy[name].mean:.3f}", "yes" if better else "no")
    return table
