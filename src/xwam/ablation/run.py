"""Training and scoring of all rows, in pieces that are kept: the same command goes on where it was stopped.

out/ablation.json                                 what is compared
out/<training>/seed-0/                            an ordinary run, and trained.json once it has ended
out/<training>/seed-0/scores/<sampling>/...json   success and dreams of a task
out/dummy.json                                    what repeating the last frame scores in the moments that are imagined
out/latency.json                                  all rows' latency, measured in turn in one process
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

from xwam.ablation.rows import AblationConfig, Row
from xwam.ablation.statistics import Values
from xwam.core.files import read_json, write_json
from xwam.core.types import Observation
from xwam.data.processes import in_processes, progress_bar
from xwam.evaluate import FIRST_DREAM_SEED, Imagined, Job, dream, play, repeat, single_threaded
from xwam.model.lpips import LPIPS
from xwam.sim.record import FIRST_EVALUATION_SEED
from xwam.train.encoding import encode_ahead
from xwam.train.runs import ModelRun
from xwam.wam import WorldActionModel

LATENCY_ROUNDS = 15
OF_IMAGES = ("psnr_db", "ssim", "lpips")
DUMMY = "repeat last frame"


@dataclass(frozen=True)
class Piece:
    """One training, and the scores of all rows that share it: work for one process with one thread."""

    config: str  # an AblationConfig as JSON
    out: Path
    row: Row
    seed: int


def finish(piece: Piece) -> bool:
    """Trains and scores what is missing; False if it was asked to stop. What it prints goes to the run's folder."""
    config = _parsed(piece.config)
    folder = folder_of(piece.out, piece.row, piece.seed)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "output.txt", "a") as output, redirect_stdout(output):
        if not trained(piece.row.applied_to(config.base, piece.seed), folder):
            return False
        for row in config.rows:
            if row.training == piece.row.training:
                scores(config, piece.out, row, piece.seed)
    return True


def trained(run: ModelRun, folder: Path) -> bool:
    """Trains, if just this was not trained to its end here before; False if it was asked to stop."""
    marker, asked = folder / "trained.json", {"run": digest(run)}
    if marker.is_file() and read_json(marker) == asked:
        return True
    if run.train_in(folder) is None:
        return False
    write_json(marker, asked)
    return True


def digest(run: ModelRun) -> str:
    return sha256(run.model_dump_json().encode()).hexdigest()


def scores(config: AblationConfig, out: Path, row: Row, seed: int) -> dict[str, float]:
    """Success, of each task too, and the means over all dreams of `ClipScores.flat`; only what is new is computed."""
    folder, run = folder_of(out, row, seed), row.applied_to(config.base, seed)
    successes, dreams = {}, []
    for task in config.tasks:
        place = folder / "scores" / row.sampling / task.replace("/", "_")
        asked = {"run": digest(run), "action_steps": row.action_steps(run)}
        job = Job(folder / "export", task, 0, config.execute, action_steps=row.action_steps(run))
        played = asked | {"episodes": config.episodes, "execute": config.execute}
        wins = kept(place.with_suffix(".success.json"), played, partial(_played, job, config.episodes))
        successes |= {f"success/{task}": fmean(wins)} if wins else {}
        imagined = asked | {"dreams": config.dreams, "lpips": config.lpips is not None}
        dreams += kept(place.with_suffix(".dreams.json"), imagined, partial(_imagined, job, config))
    means = _means(dreams)
    if row.depth == "none":  # its depth is unknown everywhere, which is no guess to be scored
        means = {name: mean for name, mean in means.items() if name.endswith(OF_IMAGES)}
    return ({"success": fmean(successes.values())} | successes if successes else {}) | means


def kept(path: Path, asked: dict, compute: Callable[[], list]) -> list:
    """What `compute` returns: from the file, if the same was asked for before."""
    if path.is_file():
        found = read_json(path)
        if found["asked"] == asked:
            return found["answer"]
    answer = compute()
    write_json(path, {"asked": asked, "answer": answer})
    return answer


def latencies(config: AblationConfig, out: Path) -> list[tuple[str, float]]:
    """Median seconds of `act` of each row's first seed, one thread; rows take turns, so that ratios are fair."""
    seed = config.seeds[0]
    runs = {row.name: row.applied_to(config.base, seed) for row in config.rows}
    models = {row.name: WorldActionModel.load(folder_of(out, row, seed) / "export") for row in config.rows}
    steps = {row.name: row.action_steps(runs[row.name]) for row in config.rows}
    torch.set_num_threads(1)
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(1 + LATENCY_ROUNDS):
        for name, model in models.items():
            began = time.perf_counter()
            model.act([_observation(model)], [0], steps[name])
            taken[name].append(time.perf_counter() - began)
    return [(name, median(times[1:])) for name, times in taken.items()]


def complete(config: AblationConfig, out: Path, workers: int) -> bool:
    """Does all that is missing, in so many processes; False if it was stopped."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "ablation.json", config.model_dump(mode="json"))
    for job in config.base.encoding_jobs():
        encode_ahead(job, in_processes(workers), wait=True)
    whole = config.model_dump_json()
    pieces = [(Piece(whole, out, row, seed),) for row, seed in config.trainings()]
    done = True
    with progress_bar() as progress:
        bar = progress.add_task("Trainings, scored", total=len(pieces))
        for finished in in_processes(workers, single_threaded)(finish, pieces):
            done &= finished
            progress.advance(bar, finished)
            if not finished:
                break
    return done


def measured(config: AblationConfig, out: Path) -> dict[str, dict[str, Values]]:
    """By row and measure, each seed's value; the last row is the dummy's, which has no seeds and one value, at 0."""
    rows: dict[str, dict[str, dict[int, float]]] = {}
    for row in config.rows:
        measures = rows.setdefault(row.name, {})
        for seed in config.seeds:
            for measure, value in scores(config, out, row, seed).items():
                measures.setdefault(measure, {})[seed] = value
    asked = {"run": digest(config.base), "tasks": list(config.tasks), "dreams": config.dreams}
    repeated = _means(kept(out / "dummy.json", asked, partial(_repeated, config, out)))
    return rows | {DUMMY: {measure: {0: value} for measure, value in repeated.items()}} if repeated else rows


def folder_of(out: Path, row: Row, seed: int) -> Path:
    return out / row.training / f"seed-{seed}"


def _played(job: Job, episodes: int) -> list[bool]:
    return [play(replace(job, seed=FIRST_EVALUATION_SEED + k)).success for k in range(episodes)]


def _imagined(job: Job, config: AblationConfig) -> list[dict[str, float | None]]:
    return [_scores(one, config.lpips) for seed in _dream_seeds(config) for one in dream(replace(job, seed=seed))]


def _repeated(config: AblationConfig, out: Path) -> list[dict[str, float | None]]:
    """The dummy's scores; of the first row's model only the robot and the frames matter."""
    checkpoint = folder_of(out, config.rows[0], config.seeds[0]) / "export"
    jobs = [Job(checkpoint, task, seed, config.execute) for task in config.tasks for seed in _dream_seeds(config)]
    return [_known(one.flat()) for job in jobs for one in repeat(job)]


def _dream_seeds(config: AblationConfig) -> range:
    return range(FIRST_DREAM_SEED, FIRST_DREAM_SEED + config.dreams)


def _scores(one: Imagined, lpips: str | None) -> dict[str, float | None]:
    numbers = one.scores.flat()
    if lpips is not None:
        still, size = one.scores.static, one.moment.truth.scene.rgb.shape[2:]
        images = [clip.rgb[still, 1:].reshape(-1, *size) for clip in (one.dream.scene, one.moment.truth.scene)]
        numbers["all/static/lpips"] = float(_judge(lpips)(*images).mean())
    return _known(numbers)


def _known(numbers: dict[str, float]) -> dict[str, float | None]:
    """With None for what is not known, which JSON can hold."""
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


@lru_cache(maxsize=1)
def _judge(folder: str) -> LPIPS:
    return LPIPS(Path(folder))


def _means(scored: Sequence[dict[str, float | None]]) -> dict[str, float]:
    """Of each measure, over those moments in which it is known; NaN if there is none."""
    known = {name: [one[name] for one in scored if one[name] is not None] for name in (scored[0] if scored else ())}
    return {name: fmean(values) if values else math.nan for name, values in known.items()}


def _observation(model: WorldActionModel) -> Observation:
    """Something to look at: how long a look takes does not depend on what is seen."""
    robot, size = model.embodiment, model.config.image_size
    image = np.full((*size, 3), 127, np.uint8)
    return Observation(dict.fromkeys(robot.camera_names, image), np.zeros(robot.proprio.size, np.float32), "wait")


@lru_cache(maxsize=1)
def _parsed(config: str) -> AblationConfig:
    return AblationConfig.model_validate_json(config)
