"""What a future is imagined from: a moment of a simulated or recorded episode, with what happened next, or files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from xwam.core.embodiment import Embodiment
from xwam.core.types import DepthScale, Observation, Origin, RGBDClip, WorldClip
from xwam.data.episodes import Episode, EpisodeStore, Views
from xwam.sim.env import Environment, make_environment
from xwam.sim.layers import layers_of
from xwam.sim.record import demonstrate
from xwam.wam import WorldActionModel


@dataclass(frozen=True)
class Present:
    """A moment, where it comes from in words, and the truth: what happened from it on, as far as that is known."""

    observation: Observation
    name: str
    truth: WorldClip | None = None


@dataclass(frozen=True)
class _Recording:
    """Rows of an episode: every frame of the truth, and the actions between them."""

    views: Views
    proprio: Float[np.ndarray, "T Dp"]
    actions: Float[np.ndarray, "A Da"]
    instruction: str
    depth_scale: DepthScale
    origin: Origin
    about: dict[str, str | int | float]
    layers: UInt8[np.ndarray, "V T H W"] | None = None


def simulated(
    model: WorldActionModel, task: str, seed: int, share: float, chunks: int, instruction: str | None = None
) -> Present:
    """A moment of an unseen, undisturbed episode of the task's expert, this share of the way through it, with layers.

    Raises ValueError if the expert fails with this seed.
    """
    environment = make_environment(task, *model.config.image_size)
    try:
        environment.embodiment.check_same_robot(model.embodiment)
        found = moments_of(model, environment, seed, [share], chunks, instruction, with_layers=True)
    finally:
        environment.close()
    if not found:
        raise ValueError(f"the expert of {task} fails with seed {seed}: choose another seed")
    return found[0]


def moments_of(
    model: WorldActionModel,
    environment: Environment,
    seed: int,
    shares: Sequence[float],
    chunks: int = 1,
    instruction: str | None = None,
    with_layers: bool = False,
) -> list[Present]:
    """Moments at these shares of an unseen, undisturbed episode of the expert; none if the expert fails.

    They lie as for one chunk, however many follow; what the expert did after the episode's end nobody knows.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"share {share}: give 0, the episode's start, to 1, the last moment with a whole future")
    episode = demonstrate(environment, seed, noise=0.0)
    if episode is None:
        return []
    last = max(episode.length - 1 - model.config.actions, 0)
    told = instruction or environment.instructions[0]
    return [_moment(model, environment, episode, int(share * last), chunks, told, with_layers) for share in shares]


def _moment(
    model: WorldActionModel,
    environment: Environment,
    episode: Episode,
    row: int,
    chunks: int,
    instruction: str,
    with_layers: bool,
) -> Present:
    rows = _rows(model, row, episode.length, chunks)
    seen = ({name: x[rows] for name, x in views.items()} for views in _fields(episode))
    recording = _Recording(
        views=Views(*seen),
        proprio=episode.proprio[rows],
        actions=episode.actions[row : rows[-1]],
        instruction=instruction,
        depth_scale="metric",
        origin="simulated",
        about={"task": environment.name, "episode_seed": episode.seed, "row": row},
        layers=layers_of(environment, episode, rows.tolist()) if with_layers else None,
    )
    return _present(model, recording, f"{environment.name}, seed {episode.seed}, row {row}")


def recorded(
    model: WorldActionModel, dataset: Path, episode: int, row: int, chunks: int, instruction: str | None = None
) -> Present:
    """A row of a recorded episode; the truth is as long as the future, or ends with the episode."""
    store, robot = EpisodeStore(dataset), model.embodiment
    store.spec.check_robot(robot)
    info = store.info(episode)
    if not 0 <= row < info.length:
        raise ValueError(f"row {row}: episode {episode} of {dataset} has rows 0 .. {info.length - 1}")
    rows = _rows(model, row, info.length, chunks)
    views = store.read(episode, rows, robot.camera_names)
    if missing := [name for name in robot.camera_names if name not in views.intrinsics]:
        raise ValueError(
            f"camera {missing[0]!r} of {dataset} has no calibration, without which there is no 4D: "
            "calibrate it and import the recording again"
        )
    proprio, actions = store.vectors(episode, robot)
    recording = _Recording(
        views=views,
        proprio=proprio[rows],
        actions=actions[row : rows[-1]],
        instruction=instruction or info.instructions[0],
        depth_scale=store.spec.depth_scale,
        origin="recorded",
        about={"dataset": dataset.name, "episode": episode, "row": row},
    )
    return _present(model, recording, f"{dataset.name}, episode {episode}, row {row}")


def _fields(views: Views) -> tuple[dict[str, np.ndarray], ...]:
    return views.rgb, views.depth_m, views.intrinsics, views.T_base_cam


def _rows(model: WorldActionModel, row: int, length: int, chunks: int) -> np.ndarray:
    """The rows of the future's frames, as far as an episode of this length has them."""
    frames = 1 + chunks * (model.config.frames - 1)
    rows = row + model.embodiment.actions_per_frame * np.arange(frames)
    return rows[rows < length]


def _present(model: WorldActionModel, recording: _Recording, name: str) -> Present:
    robot, views = model.embodiment, recording.views
    metric = recording.depth_scale == "metric"
    now = Observation(
        images={camera: views.rgb[camera][0] for camera in robot.camera_names},
        proprio=recording.proprio[0],
        instruction=recording.instruction,
        depths_m={camera: depth_m[0] for camera, depth_m in views.depth_m.items()} if metric else {},
        intrinsics={camera: views.intrinsics[camera][0] for camera in robot.camera_names},
        T_base_cam={camera: views.T_base_cam[camera][0] for camera in robot.camera_names},
    )
    happened = len(recording.proprio) > 1
    return Present(now, name, _truth(model, recording) if happened else None)


def _truth(model: WorldActionModel, recording: _Recording) -> WorldClip:
    """What the cameras saw, cropped and resized as the model sees it."""
    robot, views = model.embodiment, recording.views
    rgb, intrinsics = ([part[name] for name in robot.camera_names] for part in (views.rgb, views.intrinsics))
    depth_m = [_depth_of(robot, name, recording) for name in robot.camera_names]
    layers = recording.layers
    if layers is not None:  # like depth, they must not be mixed across edges
        _, layers, _ = model.transform.of_views(rgb, layers, None, seed=0)
    rgb, depth_m, intrinsics = model.transform.of_views(rgb, depth_m, intrinsics, seed=0)
    poses = np.stack([views.T_base_cam[name] for name in robot.camera_names])
    scene = RGBDClip(robot.camera_names, rgb, depth_m, intrinsics, poses, robot.frame_period_s, recording.depth_scale)
    return WorldClip(
        scene=scene,
        origin=recording.origin,
        instruction=recording.instruction,
        actions=recording.actions,
        action_period_s=robot.action_period_s,
        action_names=robot.action.column_names,
        action_units=robot.action.units,
        proprio=recording.proprio,
        proprio_names=robot.proprio.column_names,
        proprio_units=robot.proprio.units,
        about=recording.about,
    )


def _depth_of(robot: Embodiment, name: str, recording: _Recording) -> Float[np.ndarray, "T H W"]:
    """Depth of a camera; what lies beyond its range is unknown to the model, and so to its judge."""
    views = recording.views
    if name not in views.depth_m:
        return np.zeros(views.rgb[name].shape[:3], np.float32)
    [camera] = (camera for camera in robot.cameras if camera.name == name)
    depth_m = views.depth_m[name]
    near = (depth_m <= camera.far_m) | (recording.depth_scale == "relative")
    return np.where(near, depth_m, np.float32(0))
