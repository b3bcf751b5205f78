"""A world action model on held-out clips: losses by noise level, sampled actions, imagined futures and their pictures.

Everything is a function of the step and the seed: the same clips and the same noise each time, on every rank alike.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import Field

from xwam.core.config import Frozen
from xwam.core.embodiment import Part, VectorSpec
from xwam.core.files import write_atomically
from xwam.core.pictures import depth_colours, depth_range, png
from xwam.core.streams import Batch
from xwam.core.types import Clip
from xwam.core.video import VideoWriter
from xwam.data.latents import LatentClips
from xwam.flow.levels import Fixed
from xwam.scene.metrics import abs_rel, psnr
from xwam.train import parallel
from xwam.train.schedule import seeds_at
from xwam.train.tracking import finite
from xwam.wam import WorldActionModel

FOLDER = "validation"
# A future of nine frames at the speed of the robot is over before one has looked.
FILM_FPS = 4
SHOWN_MOMENTS = 3
GAP = 4  # pixels between the moments of a contact sheet
# Parts whose error is the length of a difference.
LENGTHS = ("position", "delta_position", "rotation_vector", "delta_rotation")


class ValidationConfig(Frozen):
    """What is measured of a world action model at each validation beside the losses of the validation batches.

    Of `clips` held-out clips, the losses at `levels` noise levels, and the error of the actions that the model samples;
    of `dreams` held-out clips, how well the imagined future meets the recorded one, with films. 0 leaves a part out.
    """

    clips: int = Field(16, ge=0)
    levels: int = Field(5, ge=0)
    dreams: int = Field(2, ge=0)


class ModelExamination:
    """Measures `model`, sharded or not, on clips spread evenly over `clips`; rank 0 writes pictures into `run`."""

    methods = ("loss", "sample")

    def __init__(self, model: WorldActionModel, clips: LatentClips, config: ValidationConfig, run: Path, seed: int):
        self._model, self._clips, self._config, self._run, self._seed = model, clips, config, run, seed

    def __call__(self, step: int) -> dict[str, dict]:
        """`levels`, `actions` and `imagined`: numbers by name; `pictures`: places of PNG files in the run's folder."""
        config = self._config
        examined = {
            "levels": self.losses_by_level() if config.clips and config.levels else {},
            "actions": self.action_errors() if config.clips and self._model.acts else {},
            **(self.imagined(step) if config.dreams else {}),
        }
        return {name: values for name, values in examined.items() if values}

    def losses_by_level(self) -> dict[str, float]:
        """Losses of each stream at noise levels in the middles of equal bins; all streams stand at the same level.

        Every law of noise has met such pairs.
        """
        batch, seeds = self._batch(self._config.clips, part=0)
        network, losses = self._model.config.transformer, {}
        streams = ("video", *("action", "proprio") * network.acts, *("depth",) * network.has_depth)
        for k in range(self._config.levels):
            sigma = (k + 0.5) / self._config.levels
            found = self._model.loss(batch, seeds, law=Fixed(sigma))
            losses |= {f"{name}/sigma_{sigma:.2f}": found[name].item() for name in streams}
        return finite(losses)

    def action_errors(self) -> dict[str, float]:
        """How far the actions that the model samples are from the recorded ones, in each part's own unit."""
        batch, seeds = self._batch(self._config.clips, part=1)
        sampled = self._model.sample(batch, seeds, world=False)
        robot = self._model.embodiment.action
        true = robot.denormalise(batch.streams.action.float().cpu().numpy())
        return action_errors(robot, self._model.actions_of(sampled), true, batch.action_valid.any(dim=2).cpu().numpy())

    def imagined(self, step: int) -> dict[str, dict]:
        """Scores against the recorded pixels, and pictures of both.

        Beside the model's stand those of repeating the present, `still`, and those of the true latents decoded, which
        are what a perfect model would have, `autoencoder`.
        """
        batch, seeds = self._batch(self._config.dreams, part=2)
        recorded = [self._clips.recorded(clip) for clip in self._chosen(self._config.dreams)]
        true = Pictures(np.stack([clip.rgb for clip in recorded]), self._depth_of(recorded))
        sampled = self._model.sample(batch, seeds, world=True)
        with torch.autocast(self._model.device.type, enabled=False):
            imagined, decoded = (
                Pictures(*self._model.pictures_of(x.to(torch.float32))) for x in (sampled, batch.streams)
            )
        scores = self.scores(imagined, true)
        for name, other in (("still", true.still()), ("autoencoder", decoded)):
            scores |= {f"{name}/{measure}": value for measure, value in self.scores(other, true).items()}
        place = f"{FOLDER}/step_{step:08d}"
        if parallel.rank() == 0:
            names = self._clips.ids(np.array(self._chosen(self._config.dreams)))
            draw(self._run / place, [f"{name.environment}_{name.episode}_{name.row}" for name in names], true, imagined)
        return {"imagined": scores, "pictures": {"imagined": f"{place}/sheet.png"}}

    def scores(self, seen: "Pictures", true: "Pictures") -> dict[str, float]:
        """PSNR of colours in dB, AbsRel of depth that is metric: means over clips, views, and frames but the given."""
        B, V, F = true.rgb.shape[:3]
        places = [(b, v, f) for b in range(B) for v in range(V) for f in range(1, F)]
        found = {"psnr_db": [psnr(seen.rgb[at], true.rgb[at]) for at in places], "abs_rel": []}
        if seen.depth_m is not None and true.depth_m is not None:
            metric = [camera.depth_scale == "metric" for camera in self._model.embodiment.cameras]
            found["abs_rel"] = [abs_rel(seen.depth_m[at], true.depth_m[at]) for at in places if metric[at[1]]]
        means = {name: np.nanmean(values) for name, values in found.items() if not np.isnan(values).all()}
        return finite(means)

    def _chosen(self, count: int) -> list[int]:
        """The same clips each time, spread evenly over the held-out ones."""
        return np.linspace(0, len(self._clips) - 1, min(count, len(self._clips))).astype(int).tolist()

    def _batch(self, count: int, part: int) -> tuple[Batch, list[int]]:
        chosen = np.array(self._chosen(count))
        batch = self._clips.batch(chosen, np.zeros_like(chosen)).to(self._model.device)
        return batch, seeds_at(self._seed, "examination", part, range(len(chosen)))

    def _depth_of(self, recorded: Sequence[Clip]) -> Float[np.ndarray, "B V F H W"] | None:
        """Recorded depth; what lies beyond a camera's range is unknown to the model, and so to its judge."""
        if all(clip.depth_m is None for clip in recorded):
            return None
        unknown = np.zeros(recorded[0].rgb.shape[:-1], np.float32)
        depth_m = np.stack([unknown if clip.depth_m is None else clip.depth_m for clip in recorded])
        far_m = np.array([camera.far_m for camera in self._model.embodiment.cameras])[:, None, None, None]
        return np.where(depth_m <= far_m, depth_m, np.float32(0))


class Pictures(NamedTuple):
    """What all cameras see in some clips."""

    rgb: UInt8[np.ndarray, "B V F H W 3"]
    depth_m: Float[np.ndarray, "B V F H W"] | None

    def still(self) -> "Pictures":
        """The first frame again and again."""
        return Pictures(*(x if x is None else np.repeat(x[:, :, :1], x.shape[2], axis=2) for x in self))


def action_errors(
    robot: VectorSpec,
    predicted: Float[np.ndarray, "B A D"],
    true: Float[np.ndarray, "B A D"],
    valid: Bool[np.ndarray, "B A"],
) -> dict[str, float]:
    """Mean errors of each part, `<part>/first` of the first actions and `<part>/chunk` of all that are valid.

    Of positions and rotation vectors it is the length of the difference, in the part's unit; of quaternions the angle
    between both, in radians; of other parts the mean over entries of the absolute difference, in the part's unit.
    """
    errors = {}
    for part in robot.parts:
        at = robot.slice(part.name)
        error = _distance(part, predicted[..., at], true[..., at])
        for name, chosen in (("first", error[:, 0][valid[:, 0]]), ("chunk", error[valid])):
            if chosen.size:
                errors[f"{part.name}/{name}"] = float(chosen.mean())
    return errors


def _distance(part: Part, a: Float[np.ndarray, "B A d"], b: Float[np.ndarray, "B A d"]) -> Float[np.ndarray, "B A"]:
    if part.kind == "quaternion":
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosine = np.abs((a * b).sum(axis=-1)) / np.maximum(lengths, 1e-9)
        return 2 * np.arccos(np.clip(cosine, 0, 1))
    difference = np.abs(a.astype(np.float64) - b)
    if part.kind in LENGTHS:
        return np.linalg.norm(difference, axis=-1)
    return difference.mean(axis=-1)


def draw(folder: Path, names: Sequence[str], true: Pictures, imagined: Pictures) -> None:
    """A film of each clip, true above and imagined below, and some moments of all clips as one sheet, sheet.png."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = []
    for b, name in enumerate(names):
        wall = beside(true, imagined, b)
        film = VideoWriter(folder / f"{name.replace('/', '_')}.mp4", *wall.shape[1:3], fps=FILM_FPS)
        film.add(wall)
        film.close()
        moments += list(wall[np.linspace(0, len(wall) - 1, SHOWN_MOMENTS).astype(int)])
    white = np.full((GAP, *moments[0].shape[1:]), 255, np.uint8)
    sheet = np.concatenate([row for moment in moments for row in (moment, white)][:-1])
    write_atomically(folder / "sheet.png", lambda path: path.write_bytes(png(sheet)))


def beside(true: Pictures, imagined: Pictures, b: int) -> UInt8[np.ndarray, "F 2H W 3"]:
    """A clip's true frames over its imagined ones; each view's colours, and beside them its depth in true's range."""
    rows = []
    for pictures in (true, imagined):
        columns = []
        for v in range(true.rgb.shape[1]):
            columns.append(pictures.rgb[b, v])
            if true.depth_m is not None and imagined.depth_m is not None:
                columns.append(depth_colours(pictures.depth_m[b, v], *depth_range(true.depth_m[b, v])))
        rows.append(np.concatenate(columns, axis=2))
    return np.concatenate(rows, axis=1)
