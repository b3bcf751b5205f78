"""A future of any length: each chunk is imagined from the last frame and state of the one before."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from xwam.core.seeds import derived_seed
from xwam.core.streams import Streams
from xwam.core.types import Dream, Observation, WorldClip
from xwam.scene.overlap import align_views
from xwam.scene.scale import align_to_measured
from xwam.wam import WorldActionModel


def imagine_future(
    model: WorldActionModel,
    observation: Observation,
    seed: int,
    chunks: int = 1,
    actions: Float[np.ndarray, "A D"] | None = None,
    on_step: Callable[[int, Streams], None] | None = None,
) -> WorldClip:
    """What the model expects of its own actions over so many chunks, or, as forward dynamics, of `actions`.

    Frames are 1 + chunks * (model.config.frames - 1); actions, if given, chunks * model.config.actions rows in physical
    units. Still cameras stay, those on an end-effector follow the foretold states by hand-eye. Where one chunk ends and
    the next begins is a seam: the next sees that frame alone, as it was imagined. Depth that is relative becomes
    `aligned` if all cameras have measured depth in `observation.depths_m`; else its views are brought to one scale by
    their overlap, and it stays `relative`. Where either cannot be, `about["not_aligned"]` tells why.
    """
    if chunks < 1:
        raise ValueError(f"{chunks} chunks: give 1 or more")
    given = _by_chunk(model, actions, chunks)
    dreams = [model.imagine(observation, seed, given[0], on_step=on_step)]
    again = _without_crop(model)
    for number in range(1, chunks):
        now = _after(observation, dreams[-1])
        dreams.append(again.imagine(now, derived_seed(seed, number), given[number], on_step=on_step))
    return _scaled(model, observation, _joined(model, observation, dreams, seed, actions is not None))


def _by_chunk(
    model: WorldActionModel, actions: Float[np.ndarray, "A D"] | None, chunks: int
) -> list[Float[np.ndarray, "a D"] | None]:
    if actions is None:
        return [None] * chunks
    rows, size = model.config.actions, model.embodiment.action.size
    if actions.shape != (chunks * rows, size):
        raise ValueError(
            f"actions have shape {actions.shape}: {chunks} chunks of this model take {chunks * rows} rows of {size}, "
            f"{list(model.embodiment.action.column_names)}"
        )
    return list(actions.reshape(chunks, rows, size))


def _without_crop(model: WorldActionModel) -> WorldActionModel:
    """The same model for frames that it made, which are of its size and cropped already."""
    model = copy(model)
    model.transform = model.transform.model_copy(update={"crop_ratio": 1.0})
    return model


def _after(observation: Observation, dream: Dream) -> Observation:
    """The last moment of a dream, as if it had been seen."""
    scene = dream.scene
    return Observation(
        images={name: scene.rgb[v, -1] for v, name in enumerate(scene.cameras)},
        proprio=dream.proprio[-1],
        instruction=observation.instruction,
        intrinsics={name: scene.intrinsics[v, -1] for v, name in enumerate(scene.cameras)},
        T_base_cam={name: scene.T_base_cam[v, -1] for v, name in enumerate(scene.cameras)},
    )


def _joined(
    model: WorldActionModel, first: Observation, dreams: list[Dream], seed: int, told_actions: bool
) -> WorldClip:
    """One clip; a frame at a seam is the last of the earlier chunk, from which the later one began."""
    scenes, robot = [dream.scene for dream in dreams], model.embodiment
    parts = [scene.over_time() for scene in scenes]
    scene = replace(scenes[0], **{name: _in_time([part[name] for part in parts], axis=1) for name in parts[0]})
    step = scenes[0].rgb.shape[1] - 1
    return WorldClip(
        scene=scene,
        origin="imagined",
        instruction=first.instruction,
        actions=np.concatenate([dream.chunk.actions for dream in dreams]) if model.acts else None,
        action_period_s=dreams[0].chunk.period_s,
        action_names=robot.action.column_names,
        action_units=robot.action.units,
        proprio=_in_time([dream.proprio for dream in dreams], axis=0),
        proprio_names=robot.proprio.column_names,
        proprio_units=robot.proprio.units,
        seams=tuple(step * number for number in range(1, len(dreams))),
        about={"seed": seed, "actions": "given" if told_actions else "imagined"},
    )


def _in_time(parts: list[np.ndarray], axis: int) -> np.ndarray:
    """Parts one after the other, each without its first frame, which is the last of the one before."""
    return np.concatenate([parts[0], *(np.delete(part, 0, axis) for part in parts[1:])], axis)


def _scaled(model: WorldActionModel, first: Observation, clip: WorldClip) -> WorldClip:
    """Relative depth aligned to what all cameras measured in the first frame, or else views brought to one scale."""
    names = clip.scene.cameras
    if clip.scene.depth_scale != "relative":
        return clip
    try:
        if all(name in first.depths_m for name in names):
            images, depths_m = ([views[name][None] for name in names] for views in (first.images, first.depths_m))
            _, measured_m, _ = model.transform.of_views(images, depths_m, None, seed=0)
            scene, fits = align_to_measured(clip.scene, measured_m[:, 0])
        else:
            scene, fits = align_views(clip.scene)
    except ValueError as error:
        return replace(clip, about=clip.about | {"not_aligned": str(error)})
    return replace(clip, scene=scene, alignments=fits)
