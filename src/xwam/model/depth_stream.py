"""Depth denoised with the video, by the trunk itself: what a depth branch is compared with.

    channels   a latent is RGB's channels, then depth's: as many tokens as without, from twice the entries
    sequence   each view has a second one beside it, its depth: twice the video tokens, at the same positions

These are channel and sequence concatenation in X-WAM's ablation (arXiv 2604.26694, Table 4). Depth answers with a
velocity, as the video does, and every stream reads it. None of it is given: where the present's RGB is clean, its
depth is still at the video's level. A token that holds both is told the level of what is noisy in it.
"""

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from xwam.core.streams import NoiseLevels, Streams
from xwam.model.config import TransformerConfig
from xwam.model.transformer import TextContext, WorldActionTransformer

APART = "k b c t v h w"
JOINED = {"channels": "b (k c) t v h w", "sequence": "b c t (v k) h w"}


def network_of(config: TransformerConfig) -> WorldActionTransformer:
    """The network that a configuration describes, with random weights."""
    return (DepthStreamTransformer if config.denoises_depth else WorldActionTransformer)(config)


class DepthStreamTransformer(WorldActionTransformer):
    """The trunk over latents that hold RGB and depth; its `config` is that of these latents."""

    def __init__(self, config: TransformerConfig):
        widened = "latent_channels" if config.depth == "channels" else "views"
        super().__init__(config.model_copy(update={widened: 2 * getattr(config, widened)}))

    def forward(
        self,
        streams: Streams,
        levels: NoiseLevels,
        text: TextContext | Float[Tensor, "B L text_width"],
        with_depth: bool = True,
    ) -> Streams:
        """Velocities of all streams; that of depth whether asked for or not, since sampling moves it in every step."""
        if streams.depth is None or levels.depth is None:
            raise ValueError(f"this network denoises depth as {self.config.depth}: give depth and its level")
        joined = JOINED[self.config.depth]
        video = rearrange([streams.video, streams.depth], f"{APART} -> {joined}")
        levels = replace(levels, video=self._levels_of_tokens(levels, views=streams.video.shape[3]))
        answer = super().forward(replace(streams, video=video, depth=None), levels, text)
        video, depth = rearrange(answer.video, f"{joined} -> {APART}", k=2)
        return replace(answer, video=video, depth=depth)

    def _levels_of_tokens(self, levels: NoiseLevels, views: int) -> Tensor:
        """Which level each frame stands at, or each view of each frame."""
        if self.config.depth == "channels":
            return levels.depth
        return torch.stack([levels.video, levels.depth], dim=1).repeat(1, views).flatten()
