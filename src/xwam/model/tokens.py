"""Streams to one sequence of tokens and back, with a position and a noise level for each token.

The order is [video | action | proprio]; video runs over latent frame, view, row, column.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from xwam.core.streams import NoiseLevels, Streams
from xwam.model.config import FRAMES_PER_LATENT, TransformerConfig

FEW_LEVELS = 8  # of which a gradient is summed one level after the other
THETA = 10000  # base of the rotary frequencies and of the noise level's


@dataclass(frozen=True)
class Layout:
    """How many tokens of each kind a sequence has; hashable, so what follows from it is computed once."""

    frames: int
    views: int
    rows: int
    columns: int
    actions: int
    proprios: int

    @classmethod
    def of(cls, streams: Streams, config: TransformerConfig) -> "Layout":
        channels, frames, views, height, width = streams.video.shape[1:]
        _, patch_height, patch_width = config.patch
        if channels != config.latent_channels:
            raise ValueError(f"video latents have {channels} channels, the network {config.latent_channels}")
        if not 1 <= views <= config.views:
            raise ValueError(f"{views} views, but the network knows 1 to {config.views}; give fewer or widen `views`")
        if height % patch_height or width % patch_width:
            raise ValueError(
                f"latents of {height} x {width} do not split into patches of {patch_height} x {patch_width}"
            )
        if not config.acts and streams.action.shape[1] + streams.proprio.shape[1]:
            raise ValueError("this network is a video prior: give no actions and no proprios, or grow it first")
        rows, columns = height // patch_height, width // patch_width
        return cls(frames, views, rows, columns, streams.action.shape[1], streams.proprio.shape[1])

    @property
    def frame(self) -> int:
        """Tokens of one latent frame, in all views."""
        return self.views * self.rows * self.columns

    @property
    def video(self) -> int:
        return self.frames * self.frame

    @property
    def lengths(self) -> tuple[int, int, int]:
        return self.video, self.actions, self.proprios


def patchify(video: Float[Tensor, "B C T V H W"], patch: tuple[int, int, int]) -> Float[Tensor, "B N D"]:
    """Tokens of video, their entries in the order of a convolution's weights: channel, row, column."""
    _, h, w = patch
    return rearrange(video, "b c t v (y h) (x w) -> b (t v y x) (c h w)", h=h, w=w)


def unpatchify(
    tokens: Float[Tensor, "B N D"], layout: Layout, patch: tuple[int, int, int]
) -> Float[Tensor, "B C T V H W"]:
    """Video of a head's tokens, whose entries Wan orders row, column, channel."""
    _, h, w = patch
    grid = {"t": layout.frames, "v": layout.views, "y": layout.rows, "x": layout.columns}
    return rearrange(tokens, "b (t v y x) (h w c) -> b c t v (y h) (x w)", h=h, w=w, **grid)


def level_of_token(levels: NoiseLevels, layout: Layout) -> Int[Tensor, " N"]:
    """Which of the distinct noise levels each token stands at; those of video are of frames, or of views of frames."""
    video = levels.video.repeat_interleave(layout.video // len(levels.video))
    return torch.cat([video, levels.action, levels.proprio])


class AtLevel(torch.autograd.Function):
    """`index_select` along the levels, whose gradient is summed level by level.

    That of `index_select` itself adds thousands of tokens into each of a few places one by one: a GPU stands in line
    for it, and in an order that changes from run to run.
    """

    @staticmethod
    def forward(context: Any, values: Float[Tensor, "B K D"], level: Int[Tensor, " N"]) -> Float[Tensor, "B N D"]:
        context.save_for_backward(level)
        context.levels = values.shape[1]
        return values.index_select(1, level)

    @staticmethod
    def backward(context: Any, gradient: Float[Tensor, "B N D"]) -> tuple[Float[Tensor, "B K D"], None]:
        [level] = context.saved_tensors
        of_each = [(gradient * (level == k)[:, None]).sum(1) for k in range(context.levels)]
        return torch.stack(of_each, dim=1), None


def at_level(values: Float[Tensor, "B K D"], level: Int[Tensor, " N"]) -> Float[Tensor, "B N D"]:
    """Of `values`, one for each distinct noise level, every token's."""
    summed = values.is_cuda and values.shape[1] <= FEW_LEVELS
    return AtLevel.apply(values, level) if summed else values.index_select(1, level)


def positions(layout: Layout, actions_per_frame: int) -> Float[Tensor, "N 3"]:
    """(time in latent frames, row, column) of each token; whatever its view, and fractional between frames."""
    grid = torch.meshgrid(
        torch.arange(layout.frames),
        torch.arange(layout.views),
        torch.arange(layout.rows),
        torch.arange(layout.columns),
        indexing="ij",
    )
    video = torch.stack([grid[0], grid[2], grid[3]], dim=-1).reshape(-1, 3).double()
    rest = torch.zeros(layout.actions + layout.proprios, 3, dtype=torch.float64)
    rest[: layout.actions, 0] = torch.arange(layout.actions) / (FRAMES_PER_LATENT * actions_per_frame)
    rest[layout.actions :, 0] = torch.arange(layout.proprios) / FRAMES_PER_LATENT
    return torch.cat([video, rest])


@lru_cache(maxsize=32)
def rotations(
    layout: Layout, actions_per_frame: int, head_width: int, device: torch.device
) -> Float[Tensor, "2 N 1 head_width"]:
    """Rotary embedding (arXiv 2104.09864) as in Wan: cosine, and sine with the sign that its entry needs.

    A head splits into parts for time, row and column. Angles are computed once a shape, in double precision.
    """
    side = 2 * (head_width // 6)
    parts = (head_width - 2 * side, side, side)
    with torch.inference_mode(False), torch.device("cpu"):  # the cache outlives the call that fills it
        where = positions(layout, actions_per_frame)
        angles = [
            where[:, axis, None] * THETA ** -(torch.arange(0, part, 2, dtype=torch.float64) / part)
            for axis, part in enumerate(parts)
        ]
        angle = torch.cat(angles, dim=1).unsqueeze(1)
        sine = angle.sin()
        table = torch.stack([angle.cos().repeat_interleave(2, -1), torch.stack([-sine, sine], dim=-1).flatten(-2)])
        return table.float().to(device)


def frequencies(sigma: Float[Tensor, "B K"], width: int) -> Float[Tensor, "B K width"]:
    """Cosines and sines that tell a noise level to the network, which counts it in thousandths (Wan2.2)."""
    half = width // 2
    rates = THETA ** -(torch.arange(half, dtype=torch.float64, device=sigma.device) / half)
    angle = 1000 * sigma.double().unsqueeze(-1) * rates
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
