"""Encoding ahead: the shards of a `LatentPlan`, made by as many workers as there are."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from xwam.data.batches import depth_validity, depth_video, rgb_video
from xwam.data.clips import Window, load_clip
from xwam.data.latents import LatentPlan
from xwam.data.shards import Outcome, make_shard

# (video (V, 3, F, H, W) in [-1, 1], frames (n, f) of n clips in it) -> latents (n, C, T, V, h, w)
EncodeWindows = Callable[[Tensor, Int[np.ndarray, "n f"]], Tensor]
# So many clips are encoded together, of one episode and in order: what a shard holds depends on nothing else.
CLIPS_AT_ONCE = 64


def encode_shard(plan: LatentPlan, shard: int, encode: EncodeWindows, verify: bool = False) -> Outcome:
    """Encodes a shard, unless it is there or another worker is at it; with `verify`, what is there is read again."""

    def make() -> tuple[dict[str, Tensor], dict]:
        parts = [_episode_tensors(plan, episode, encode) for episode in plan.episodes(shard)]
        clips, rows = (np.cumsum([0, *(len(part[name]) for part in parts)]) for name in ("starts", "actions"))
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        tensors["episodes"] = torch.from_numpy(np.stack([clips[:-1], clips[1:], rows[:-1]], axis=1))
        return tensors, {"format": "xwam latents"}

    return make_shard(plan.path(shard), lambda: plan.fingerprint(shard), make, verify)


def _episode_tensors(plan: LatentPlan, episode: int, encode: EncodeWindows) -> dict[str, Tensor]:
    """Latents of an episode's clips, where these start, and the states and actions of all its rows."""
    index = plan.index([episode])
    windows = np.stack([index.window(clip)[1].frames for clip in range(len(index))])
    chunks = [windows[first : first + CLIPS_AT_ONCE] for first in range(0, len(windows), CLIPS_AT_ONCE)]
    parts = [_latents(plan, episode, chunk, encode) for chunk in chunks]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    proprio, actions = plan.store.vectors(episode, plan.embodiment)
    vectors = {"proprio": torch.from_numpy(proprio), "actions": torch.from_numpy(actions)}
    return tensors | vectors | {"starts": torch.from_numpy(windows[:, 0].astype(np.int64))}


def _latents(
    plan: LatentPlan, episode: int, windows: Int[np.ndarray, "n f"], encode: EncodeWindows
) -> dict[str, Tensor]:
    """Latents of some clips; each of their frames is decoded once."""
    rows, frames = np.unique(windows, return_inverse=True)
    frames = frames.reshape(windows.shape)
    whole, (transform, seed) = Window(rows, rows, rows >= 0), plan.settings.shown_by(episode)
    clip = load_clip(plan.store, episode, whole, plan.embodiment, "", transform=transform, seed=seed)
    tensors = {"video": encode(rgb_video(clip.rgb), frames)}
    if clip.depth_m is not None:
        tensors["depth"] = encode(depth_video(clip.depth_m, plan.embodiment), frames)
    dtype = getattr(torch, plan.settings.dtype)
    for name, latents in tensors.items():
        stored = latents.to("cpu", dtype)
        if len(latents) != len(windows) or not torch.isfinite(stored).all():
            about = f"{name} latents of {len(windows)} clips of episode {episode}"
            raise ValueError(f"{about} have shape {tuple(latents.shape)} or are not finite in {plan.settings.dtype}")
        tensors[name] = stored
    if clip.depth_m is not None:
        grid = tensors["video"].shape[2:]
        valid = [depth_validity(clip.depth_m[:, some], plan.embodiment, grid) for some in frames]
        tensors["depth_valid"] = torch.from_numpy(np.stack(valid))
    return tensors
