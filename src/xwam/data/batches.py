"""Clips to batches of the network: video encoded, vectors normalised, and each entry marked valid or not."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from xwam.core.embodiment import Embodiment
from xwam.core.streams import Batch, Streams
from xwam.core.types import Clip
from xwam.data.clips import ClipDataset, ClipId
from xwam.data.sampling import Sampling
from xwam.data.skips import ReadableClips

# video (B, V, 3, F, H, W) in [-1, 1] -> latents (B, C, T, V, h, w)
Encode = Callable[[Tensor], Tensor]


class Clips(Protocol):
    """Clips that can be shown as batches; `draws` says for each the how-manieth time it is."""

    def __len__(self) -> int: ...

    def batch(self, clips: Int[np.ndarray, " B"], draws: Int[np.ndarray, " B"]) -> Batch: ...

    def ids(self, clips: Int[np.ndarray, " n"]) -> list[ClipId]: ...


class ClipBatches:
    """Batches as a function of (seed, step), so that a resumed training sees what an unbroken one would."""

    def __init__(
        self,
        training: Clips,
        held_out: Clips,
        *,
        batch_size: int,
        seed: int,
        validation_batches: int = 8,
        rank: int = 0,
        ranks: int = 1,
    ):
        """`batch_size` is that of all ranks together, of which each has its share."""
        self._training, self._held_out = training, held_out
        self._sampling = Sampling(len(training), seed, batch_size, rank, ranks)
        self._batch_size, self._validation_batches = batch_size, validation_batches
        self._rank, self._ranks = rank, ranks

    def train(self, step: int) -> Batch:
        return self._training.batch(*self._sampling.at(step))

    def ids(self, step: int) -> list[ClipId]:
        """Which clips make the whole batch of a step, that of all ranks."""
        clips, _ = self._sampling.positions(step * self._batch_size + np.arange(self._batch_size))
        return self._training.ids(clips)

    def validation(self) -> Iterator[Batch]:
        """The same clips each time, spread evenly over the held-out ones; of each batch an equal share a rank."""
        count = min(len(self._held_out), self._validation_batches * self._batch_size)
        count = -(-count // self._ranks) * self._ranks
        chosen = np.linspace(0, len(self._held_out) - 1, count).astype(int)
        for first in range(0, count, self._batch_size):
            clips = chosen[first : first + self._batch_size].reshape(self._ranks, -1)[self._rank]
            yield self._held_out.batch(clips, np.zeros_like(clips))


class PixelClips:
    """Clips decoded and encoded anew each time, so that they can be augmented; what cannot be read is skipped."""

    def __init__(self, dataset: ClipDataset, embodiment: Embodiment, encode: Encode):
        self._clips, self._embodiment, self._encode = ReadableClips(dataset), embodiment, encode

    def __len__(self) -> int:
        return len(self._clips)

    def ids(self, clips: Int[np.ndarray, " n"]) -> list[ClipId]:
        return self._clips.ids(clips)

    def recorded(self, clip: int) -> Clip:
        """What a clip's batch is made from."""
        return self._clips.at(clip, draw=0)

    def batch(self, clips: Int[np.ndarray, " B"], draws: Int[np.ndarray, " B"]) -> Batch:
        shown = [self._clips.at(int(clip), int(draw)) for clip, draw in zip(clips, draws, strict=True)]
        return collate(shown, self._embodiment, self._encode)


def collate(clips: Sequence[Clip], embodiment: Embodiment, encode: Encode) -> Batch:
    """A batch of clips; where no clip has depth the batch has none, else those without it are marked not valid."""
    video = encode(torch.stack([rgb_video(clip.rgb) for clip in clips]))
    unknown = np.zeros(clips[0].rgb.shape[:-1], np.float32)
    depths_m = [unknown if clip.depth_m is None else clip.depth_m for clip in clips]
    depth_valid = np.stack([depth_validity(depth_m, embodiment, video.shape[2:]) for depth_m in depths_m])
    depth = None
    if depth_valid.any():
        depth = encode(torch.stack([depth_video(depth_m, embodiment) for depth_m in depths_m]))
    arrays = (np.stack([getattr(clip, name) for clip in clips]) for name in ("proprio", "actions", "actions_valid"))
    proprio, action, proprio_valid, action_valid = normalised(embodiment, *arrays)
    streams = Streams(video=video, action=action, proprio=proprio, depth=depth)
    instructions = tuple(clip.instruction for clip in clips)
    return Batch(streams, action_valid, proprio_valid, torch.from_numpy(depth_valid), instructions)


def rgb_video(rgb: UInt8[np.ndarray, "V F H W 3"]) -> Float[Tensor, "V 3 F H W"]:
    """Colours in [-1, 1]."""
    return torch.from_numpy(rgb).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def depth_video(depth_m: Float[np.ndarray, "V F H W"], embodiment: Embodiment) -> Float[Tensor, "V 3 F H W"]:
    """Depth coded in [-1, 1] by each camera's range, as a grey video."""
    codes = np.stack([camera.depth.encode(view) for camera, view in zip(embodiment.cameras, depth_m, strict=True)])
    return torch.from_numpy(codes)[:, None].expand(-1, 3, -1, -1, -1)


def depth_validity(
    depth_m: Float[np.ndarray, "V F H W"], embodiment: Embodiment, latent: tuple[int, int, int, int]
) -> Bool[np.ndarray, "T V h w"]:
    """Which depth latents, of shape (T, V, h, w), were measured.

    A camera without any depth has none. Where its unknown depth is `missing`, a latent is valid if at least half of
    the pixels that it stands for are known.
    """
    T, V, h, w = latent
    known = depth_m > 0
    F, H, W = known.shape[1:]
    cells = known.reshape(V, F, h, H // h, w, W // w).mean(axis=(3, 5))
    later = cells[:, 1:].reshape(V, T - 1, (F - 1) // max(T - 1, 1), h, w).mean(axis=2)
    measured = np.concatenate([cells[:, :1], later], axis=1) >= 0.5  # the first frame has a latent of its own
    far = np.array([camera.unknown_depth == "far" for camera in embodiment.cameras])[:, None, None, None]
    return np.moveaxis(np.where(far, known.any(axis=(1, 2, 3))[:, None, None, None], measured), 0, 1)


def normalised(
    embodiment: Embodiment,
    proprio: Float[np.ndarray, "n T Dp"],
    actions: Float[np.ndarray, "n A Da"],
    actions_valid: Bool[np.ndarray, "n A"],
) -> tuple[Float[Tensor, "n T _p"], Float[Tensor, "n A _a"], Bool[Tensor, "n T _p"], Bool[Tensor, "n A _a"]]:
    """Proprio and actions in the network's units, then the validity of their entries; what is not valid is 0."""
    action_valid = actions_valid[..., None] & embodiment.action.valid
    action = np.where(action_valid, embodiment.action.normalise(actions), np.float32(0))
    states = embodiment.proprio.normalise(proprio)
    proprio_valid = np.broadcast_to(embodiment.proprio.valid, states.shape).copy()
    return tuple(torch.from_numpy(x) for x in (states, action, proprio_valid, action_valid))
