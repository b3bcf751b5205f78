"""A training step as X-WAM's reference takes it, made again from its description: what ours is measured against.

It reads the weights of our own modules, so that both must give the same loss. Every token has a modulation of its own,
in float32; rotary positions are multiplied as complex numbers in double precision; residuals, norms and gates are
written out; and the autoencoder and the text encoder run in every step. Where something could be done well or badly,
it is done well: angles are kept, attention is fused, and all videos of a step are encoded at once.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xwam.core.streams import Batch, NoiseLevels, Streams
from xwam.model.autoencoders import VideoAutoencoder
from xwam.model.tokens import THETA, Layout, frequencies, level_of_token, patchify, positions, unpatchify
from xwam.model.transformer import Attention, Block, Head, RMSNorm, WorldActionTransformer

KeysValues = tuple[Tensor, Tensor]


class PlainNetwork:
    """The network's answer from the weights of ours."""

    def __init__(self, network: WorldActionTransformer):
        self.network, self.config = network, network.config
        self._turns: dict[Layout, Tensor] = {}

    def __call__(self, noisy: Streams, levels: NoiseLevels, text: Tensor, with_depth: bool) -> Streams:
        """As ours: velocities, and the clean depth latent if asked for; `text` is (B, L, text width)."""
        network, layout = self.network, Layout.of(noisy, self.config)
        sigma = levels.values[:, level_of_token(levels, layout)]
        vector = network.time_embedding(frequencies(sigma, self.config.frequency_width))  # (B, N, D)
        vectors = network.time_projection(vector).unflatten(-1, (6, -1))  # (B, N, 6, D)
        turn, text = self._turn(layout, sigma.device), network.text_embedding(text)
        x, depth, count = self._embedded(noisy, layout), None, layout.video
        first = len(network.blocks) - len(network.depth_blocks) if with_depth else len(network.blocks)
        for i, block in enumerate(network.blocks):
            depth = x[:, :count] if i == first else depth
            x, trunk = through(block, x, vectors, turn, text)
            if depth is not None:
                twin = network.depth_blocks[i - first]
                depth, _ = through(twin, depth, vectors[:, :count], turn[:count], text, trunk)
        video, action, proprio = x.split(layout.lengths, dim=1)
        answers = {"video": headed(network.head, video, vector[:, :count])}
        if depth is not None:
            answers["depth"] = headed(network.depth_head, depth, vector[:, :count])
        pictures = {name: unpatchify(y, layout, self.config.patch) for name, y in answers.items()}
        return Streams(action=network.action_decoder(action), proprio=network.proprio_decoder(proprio), **pictures)

    def _embedded(self, noisy: Streams, layout: Layout) -> Tensor:
        network = self.network
        video = network.patch_embedding(patchify(noisy.video, self.config.patch))
        views = torch.arange(layout.views, device=video.device).repeat_interleave(layout.rows * layout.columns)
        video = video + network.view_embedding(views).repeat(layout.frames, 1)
        parts = [video, network.action_encoder(noisy.action), network.proprio_encoder(noisy.proprio)]
        return torch.cat(parts, dim=1).float()

    def _turn(self, layout: Layout, device: torch.device) -> Tensor:
        """Unit complex numbers (N, 1, d / 2) in double precision."""
        if layout not in self._turns:
            where = positions(layout, self.config.actions_per_frame)
            side = 2 * (self.config.head_width // 6)
            parts = (self.config.head_width - 2 * side, side, side)
            rates = [THETA ** -(torch.arange(0, part, 2, dtype=torch.float64) / part) for part in parts]
            angles = torch.cat([where[:, axis, None] * rate for axis, rate in enumerate(rates)], dim=1)
            self._turns[layout] = torch.polar(torch.ones_like(angles), angles)[:, None].to(device)
        return self._turns[layout]


def through(
    block: Block, x: Tensor, vectors: Tensor, turn: Tensor, text: Tensor, beside: KeysValues | None = None
) -> tuple[Tensor, KeysValues]:
    """Tokens after a block, and their keys and values."""
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (vectors + block.modulation.float()).unbind(2)
    attention, cross = block.self_attention, block.cross_attention
    y = F.layer_norm(x, x.shape[-1:], eps=block.eps) * (1 + scale) + shift
    queries, keys = (turned(placed(attention, part, y), turn) for part in ("query", "key"))
    own = keys, split(attention, attention.value(y))
    seen = own if beside is None else tuple(torch.cat(pair, dim=1) for pair in zip(own, beside, strict=True))
    x = x + gate * read(attention, queries, seen).float()
    to_text = placed(cross, "key", text), split(cross, cross.value(text))
    x = x + read(cross, placed(cross, "query", block.cross_norm(x)), to_text).float()
    y = F.layer_norm(x, x.shape[-1:], eps=block.eps) * (1 + ffn_scale) + ffn_shift
    y = block.ffn.down(F.gelu(block.ffn.up(y), approximate="tanh"))
    return x + ffn_gate * y.float(), own


def headed(head: Head, x: Tensor, vector: Tensor) -> Tensor:
    shift, scale = (vector.unsqueeze(2) + head.modulation.float()).unbind(2)
    return head.linear(F.layer_norm(x, x.shape[-1:], eps=head.eps) * (1 + scale) + shift)


def placed(attention: Attention, part: str, x: Tensor) -> Tensor:
    """Queries or keys (B, N, h, d), normalised over the whole width."""
    norm: RMSNorm = getattr(attention, f"{part}_norm")
    y = getattr(attention, part)(x).float()
    return split(attention, y * torch.rsqrt(y.square().mean(-1, keepdim=True) + norm.eps) * norm.weight.float())


def split(attention: Attention, x: Tensor) -> Tensor:
    return x.unflatten(-1, (attention.heads, -1))


def turned(x: Tensor, turn: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).float()


def read(attention: Attention, queries: Tensor, of: KeysValues) -> Tensor:
    """In the type of the values: bfloat16 under autocast."""
    q, k, v = (x.to(of[1].dtype).transpose(1, 2) for x in (queries, *of))
    return attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


@torch.no_grad()
def encoded(autoencoder: VideoAutoencoder, batch: Batch) -> Batch:
    """A batch whose video and depth are pixels (B, 3, F, V, H, W) in [-1, 1], with latents in their place."""
    views = batch.streams.video.shape[3]
    pixels = torch.cat([batch.streams.video, batch.streams.depth])
    latents = autoencoder.encode(rearrange(pixels, "b c f v h w -> (b v) c f h w"))
    video, depth = rearrange(latents, "(b v) c t h w -> b c t v h w", v=views).chunk(2)
    return replace(batch, streams=replace(batch.streams, video=video, depth=depth))


@torch.no_grad()
def read_texts(text_encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return text_encoder.embed(ids, mask)
