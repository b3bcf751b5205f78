"""`xwam score`: predicted 4D clips against what happened, beside two baselines that predict nothing.

Either clips in folders, or moments of episodes, of which models imagine the future. docs/scoring.md defines it all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table as RichTable

from xwam.core.files import write_atomically, write_json
from xwam.core.types import RGBDClip, WorldClip
from xwam.data.clips import split
from xwam.data.episodes import EpisodeStore
from xwam.data.processes import in_processes, progress_bar
from xwam.evaluate import FIRST_DREAM_SEED, Job, loaded, opened, single_threaded
from xwam.imagine.present import Present, moments_of, recorded
from xwam.model.i3d import I3D
from xwam.model.lpips import LPIPS
from xwam.saved import described
from xwam.scene.baselines import REACH_M, move_with_gripper, repeat_last_frame
from xwam.scene.folder import ABOUT, read_clip
from xwam.scene.horizon import draw
from xwam.scene.motion import action_errors, gripper_poses
from xwam.scene.score import VOXEL_M, ClipScores, Perceptual, Truth, Watch
from xwam.scene.scoreboard import Scoreboard
from xwam.train.held_out import check_unseen, run_on
from xwam.wam import WorldActionModel

OF_POSES = ("position_m", "rotation_rad")
STILL, MOVED = "repeat last frame", "moved with gripper"
PROTOCOL = {
    "clouds": f"fused views without flying pixels, one point a cube of {1000 * VOXEL_M:.0f} mm, exact distances",
    MOVED: f"points of the last frame within {1000 * REACH_M:.0f} mm of the gripper follow its true motion",
    "intervals": "95%, bootstrap over episodes",
}


@dataclass(frozen=True)
class Networks:
    """Where the published weights are of networks that look at pictures: LPIPS's folder and FVD's file."""

    lpips: Path | None = None
    fvd: Path | None = None


@lru_cache(maxsize=1)
def _opened(networks: Networks) -> tuple[Perceptual | None, Watch | None]:
    """What measures LPIPS, and what gives the features of FVD; None of what is not asked for."""
    lpips, fvd = networks.lpips, networks.fvd
    return None if lpips is None else LPIPS(lpips), None if fvd is None else I3D(fvd)


# ---- one clip ----------------------------------------------------------------------------------------------------


class Judge:
    """A true clip: scores predictions of it, and the two baselines."""

    def __init__(self, true: WorldClip, static: Bool[np.ndarray, " V"], networks: Networks, name: str):
        """`name` stands for an episode of its own if the clip does not say from which it is."""
        perceptual, watch = _opened(networks)
        self._true, self._truth = true, Truth(true.scene, static, perceptual, true.episode or name, watch)

    def score(self, predicted: RGBDClip, actions: Float[np.ndarray, "A D"] | None) -> ClipScores:
        """Scores of a prediction, its actions included if both are known."""
        scores, true = self._truth.score(predicted), self._true
        if actions is None or true.actions is None:
            return scores
        frames = true.scene.rgb.shape[1] - 1
        errors = action_errors(actions, true.actions, true.action_names, true.action_units, frames)
        return replace(scores, steps=scores.steps | {f"all/robot/{part}": error for part, error in errors.items()})

    def baselines(self) -> dict[str, ClipScores]:
        """Both baselines; the one that moves only if the truth tells where a gripper was, from which it takes poses."""
        true, scores = self._true, {STILL: self._truth.score(repeat_last_frame(self._true.scene))}
        grippers = None if true.proprio is None else gripper_poses(true.proprio, true.proprio_names)
        if grippers is not None and len(grippers):
            moved = move_with_gripper(true.scene, grippers, true.scene.T_base_cam)
            known = self._truth.score(moved)
            foretold = {name: own for name, own in known.steps.items() if not name.endswith(OF_POSES)}
            scores[MOVED] = replace(known, steps=foretold)
        return scores


# ---- clips in folders --------------------------------------------------------------------------------------------


def score_folders(predicted: Sequence[Path], truth: Path, networks: Networks = Networks()) -> Scoreboard:
    """A column for each of `predicted`: a clip's folder, or a folder of such, named as those in `truth`.

    A prediction that goes on longer than the truth, which ends with its episode, is scored as far as that goes.
    """
    true = clips_in(truth)
    columns = {name: clips_in(folder) for name, folder in zip(names_of(predicted), predicted, strict=True)}
    for name, clips in columns.items():
        if missing := sorted(true.keys() - clips.keys()):
            raise ValueError(f"{name} lacks {len(missing)} of {len(true)} clips of {truth}, such as {missing[0]!r}")
    moving = np.any([~read_clip(path).scene.standing() for path in true.values()], axis=0)
    found: dict[str, list[ClipScores]] = {}
    scales: dict[str, set[str]] = {name: set() for name in columns}
    with progress_bar() as progress:
        bar = progress.add_task("Clips", total=len(true))
        for clip, path in true.items():
            known = read_clip(path)
            judge = Judge(known, ~moving, networks, clip)
            for name, clips in columns.items():
                ours = read_clip(clips[clip]).until(known.scene.rgb.shape[1])
                found.setdefault(name, []).append(judge.score(ours.scene, ours.actions))
                scales[name].add(ours.scene.depth_scale)
            for name, scores in judge.baselines().items():
                found.setdefault(name, []).append(scores)
            progress.advance(bar)
    depth = "; ".join(f"{name}: {', '.join(sorted(own))}" for name, own in scales.items())
    protocol = {"predicted": ", ".join(columns), "truth": truth.resolve().name, "predicted depth": depth, **PROTOCOL}
    return Scoreboard(found, known.scene.period_s, protocol)


def clips_in(folder: Path) -> dict[str, Path]:
    """Clips by name: `folder` itself if it is one, else the folders in it that are."""
    if (folder / ABOUT).is_file():
        return {"": folder}
    clips = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{ABOUT}"))}
    if not clips:
        raise ValueError(f"{folder} is no clip and holds none: give a folder that `xwam imagine` wrote, or its parent")
    return clips


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of columns: as many of each path's last parts as it takes for all to differ."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"{', '.join(map(str, paths))}: the same folder twice; name each once")


# ---- moments of episodes, imagined -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Moments of one episode for one process: of `dataset`, or else of the expert in the simulator's `task`.

    `given`: models are told the actions that were executed. `episode` is the dataset's, or the simulator's seed.
    """

    checkpoints: tuple[Path, ...]
    moments: int
    given: bool = False
    networks: Networks = Networks()
    device: str = "cpu"
    dataset: Path | None = None
    task: str = ""
    episode: int = 0

    def models(self) -> dict[str, WorldActionModel]:
        """The models by the names of their columns."""
        models = [loaded(checkpoint, self.device) for checkpoint in self.checkpoints]
        check_same_sight(models)
        return dict(zip(names_of(self.checkpoints), models, strict=True))


def simulated_works(asked: Work, tasks: Sequence[str], episodes: int) -> list[Work]:
    """As asked, of so many unseen expert episodes of each task."""
    seeds = range(FIRST_DREAM_SEED, FIRST_DREAM_SEED + episodes)
    return [replace(asked, task=task, episode=seed) for seed in seeds for task in tasks]


def recorded_works(asked: Work, dataset: Path, episodes: int) -> list[Work]:
    """As asked, of so many of the episodes that the first model's training held out of a dataset, evenly spread.

    Raises ValueError if another of the models was trained on one of them.
    """
    run, store = run_on(asked.checkpoints[0], dataset), EpisodeStore(dataset)
    _, held_out = split(store, run.data.held_out, run.data.seed)
    for checkpoint in asked.checkpoints:
        check_unseen(store, held_out, described(checkpoint)["provenance"])
    places = np.linspace(0, len(held_out) - 1, min(episodes, len(held_out))).astype(int)
    return [replace(asked, dataset=dataset, episode=held_out[place]) for place in places]


def score_models(works: Sequence[Work], workers: int) -> Scoreboard:
    """A column for each model and baseline; episodes that are too short, or that the expert fails, are left out."""
    found: dict[str, list[ClipScores]] = {}
    with progress_bar() as progress:
        bar = progress.add_task("Episodes", total=len(works))
        for scored in in_processes(workers, single_threaded)(judged, [(work,) for work in works]):
            for column, scores in scored.items():
                found.setdefault(column, []).extend(scores)
            progress.advance(bar)
    if not found:
        raise ValueError(f"none of {len(works)} episodes has a moment with a whole future: choose others, or more")
    models = works[0].models()
    return Scoreboard(found, next(iter(models.values())).embodiment.frame_period_s, _protocol(works, models))


def _protocol(works: Sequence[Work], models: Mapping[str, WorldActionModel]) -> dict[str, str]:
    asked, told = works[0], {"models": ", ".join(models)}
    told["predicted depth"] = "; ".join(f"{name}: {_depth_of(model)}" for name, model in models.items())
    if asked.dataset is not None:
        told["episodes"] = f"{len(works)} held out of {asked.dataset.name}"
    else:
        told["tasks"] = ", ".join(dict.fromkeys(work.task for work in works))
        told["episodes"] = f"of the expert, seeds {works[0].episode} to {works[-1].episode} of each task"
    told["moments"] = f"{asked.moments} of each episode, evenly spread"
    told["actions"] = "given: those that were executed" if asked.given else "the model's own; the truth followed others"
    return told | PROTOCOL


def _depth_of(model: WorldActionModel) -> str:
    scales = {camera.depth_scale for camera in model.embodiment.cameras}
    return ", ".join(sorted(scales)) if model.config.transformer.has_depth else "none"


def judged(work: Work) -> dict[str, list[ClipScores]]:
    """Scores of every model and of the baselines at each moment of an episode, by column."""
    models, found = work.models(), {}
    first = next(iter(models.values()))
    for moment in _moments(work, first):
        judge = Judge(moment.truth, first.embodiment.still_cameras, work.networks, moment.name)
        for name, model in models.items():
            given = moment.truth.actions if work.given else None
            dream = model.imagine(moment.observation, work.episode, given)
            own = None if work.given or not model.acts else dream.chunk.actions
            found.setdefault(name, []).append(judge.score(dream.scene, own))
        for name, scores in judge.baselines().items():
            found.setdefault(name, []).append(scores)
    return found


def _moments(work: Work, model: WorldActionModel) -> Iterator[Present]:
    shares = ((np.arange(work.moments) + 0.5) / work.moments).tolist()
    if work.dataset is None:
        environment = opened(Job(work.checkpoints[0], work.task, work.episode, execute=1, device=work.device))[1]
        yield from moments_of(model, environment, work.episode, shares)
        return
    last = EpisodeStore(work.dataset).info(work.episode).length - 1 - model.config.actions
    for share in shares if last >= 0 else ():
        yield recorded(model, work.dataset, work.episode, int(share * last), chunks=1)


def check_same_sight(models: Sequence[WorldActionModel]) -> None:
    """Raises ValueError unless the models foresee the same frames of the same crop, so that one truth judges all."""
    sights = [(model.transform, model.config.frames, model.embodiment.camera_names) for model in models]
    for other in sights:
        if other != sights[0]:
            raise ValueError(f"models see other things: {sights[0]} and {other}: score them one after the other")


# ---- results -----------------------------------------------------------------------------------------------------


def write_scores(board: Scoreboard, out: Path, name: str, about: Mapping[str, str]) -> Path:
    """Prints the tables, and writes `name`.json, `name`.svg and `name`.md; returns the last."""
    console = Console()
    for table in board.tables():
        shown = RichTable(*table.heads, title=table.title)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    numbers = {**about, **board.numbers()}
    write_json(out / f"{name}.json", numbers)
    write_atomically(out / f"{name}.svg", lambda path: path.write_text(draw(board)))
    page = "\n".join(_page(board, name, numbers, about))
    write_atomically(out / f"{name}.md", lambda path: path.write_text(page))
    return out / f"{name}.md"


def _page(board: Scoreboard, name: str, numbers: dict, about: Mapping[str, str]) -> Iterator[str]:
    yield "# Predicted 4D against what happened\n"
    yield f"Clips: {numbers['clips']}, of {numbers['episodes']} episodes. Means, with 95% intervals in brackets; ↑ "
    yield f"more is better, ↓ less is. What each measure is: scoring.md in docs. All numbers: {name}.json.\n"
    yield from (f"- {key}: {value}" for key, value in {**about, **board.protocol}.items())
    yield ""
    yield from (table.markdown() for table in (*board.tables(), board.by_frame()))
    yield f"### Over time\n\n![Every measure over the frames of the future]({name}.svg)\n"
