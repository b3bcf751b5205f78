"""The transformer's parts: attention over tokens that carry positions, and blocks modulated by noise level.

Axes: B batch, N queries' tokens, M keys' tokens, h heads, d entries of a head, K distinct noise levels, D width.
Linear layers follow autocast; residuals, norms and modulation stay in float32, as in Wan2.2.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

# On a CPU the fused kernels gain nothing from bfloat16; writing the scores out wins while they fit its caches.
PLAIN_ATTENTION_SCORES = 512 * 512


class KeysValues(NamedTuple):
    keys: Float[Tensor, "B M h d"]
    values: Float[Tensor, "B M h d"]

    def and_also(self, other: "KeysValues") -> "KeysValues":
        return KeysValues(torch.cat([self.keys, other.keys], dim=1), torch.cat([self.values, other.values], dim=1))


def attend(queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N h d"]:
    """softmax(q k / sqrt(d)) v, by whichever way is faster here."""
    scores = queries.shape[1] * of.keys.shape[1]
    plain = queries.device.type == "cpu" and scores <= PLAIN_ATTENTION_SCORES
    return attend_plain(queries, of) if plain else attend_fused(queries, of)


def attend_plain(queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N h d"]:
    q, k, v = (x.transpose(1, 2) for x in (queries * queries.shape[-1] ** -0.5, *of))
    return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2)


def attend_fused(queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N h d"]:
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (queries, *of))).transpose(1, 2)


def rotated(x: Float[Tensor, "B N h d"], rotation: Float[Tensor, "2 N 1 d"]) -> Float[Tensor, "B N h d"]:
    """Adjacent pairs of entries turned by each token's angles: (a, b) -> (a cos - b sin, b cos + a sin); float32."""
    x, (cosine, signed_sine) = x.float(), rotation
    partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cosine + partner * signed_sine


def gelu(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """GELU by tanh, as Wan was trained with.

    Its tanh costs a CPU 4 times as much as the exact erf, and the two differ by less than bfloat16 can tell.
    """
    exact = x.device.type == "cpu" and x.dtype == torch.bfloat16
    return F.gelu(x, approximate="none" if exact else "tanh")


class RMSNorm(nn.RMSNorm):
    """Over the whole width, across heads; computed in float32."""

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps)


class LayerNorm(nn.LayerNorm):
    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


class PreciseLinear(nn.Linear):
    """In float32 whatever autocast and the weights' type say; for noise levels, to which sampling is sensitive."""

    def forward(self, x: Float[Tensor, "*n Di"]) -> Float[Tensor, "*n Do"]:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float(), self.bias.float())


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.query_norm, self.key_norm = RMSNorm(width, eps), RMSNorm(width, eps)

    def queries(
        self, x: Float[Tensor, "B N D"], rotation: Float[Tensor, "2 N 1 d"] | None = None
    ) -> Float[Tensor, "B N h d"]:
        projected = self.query(x)
        return self._placed(self.query_norm(projected), rotation).to(projected.dtype)

    def keys_values(self, x: Float[Tensor, "B M D"], rotation: Float[Tensor, "2 M 1 d"] | None = None) -> KeysValues:
        values = self.value(x)
        keys = self._placed(self.key_norm(self.key(x)), rotation).to(values.dtype)
        return KeysValues(keys, self._split(values))

    def read(self, queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N D"]:
        return self.out(attend(queries, of).flatten(-2))

    def _placed(self, x: Float[Tensor, "B N D"], rotation: Tensor | None) -> Float[Tensor, "B N h d"]:
        return self._split(x) if rotation is None else rotated(self._split(x), rotation)

    def _split(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N h d"]:
        return x.unflatten(-1, (self.heads, -1))


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        return self.down(gelu(self.up(x)))


class Coder(nn.Module):
    """Linear - GELU - Linear: into the network's width or out of it."""

    def __init__(self, inside: int, middle: int, outside: int):
        super().__init__()
        self.first, self.second = nn.Linear(inside, middle), nn.Linear(middle, outside)

    def forward(self, x: Float[Tensor, "*n Di"]) -> Float[Tensor, "*n Do"]:
        return self.second(gelu(self.first(x)))


class Block(nn.Module):
    """Self-attention, cross-attention to text, feed-forward; the first and last shifted, scaled and gated by level."""

    def __init__(self, width: int, ffn_width: int, heads: int, eps: float):
        super().__init__()
        self.eps = eps
        self.modulation = nn.Parameter(torch.randn(1, 6, width) / width**0.5)
        self.self_attention = Attention(width, heads, eps)
        self.cross_norm = LayerNorm(width, eps)
        self.cross_attention = Attention(width, heads, eps)
        self.ffn = FeedForward(width, ffn_width)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        level_vectors: Float[Tensor, "B K 6 D"],
        level: Int[Tensor, " N"],
        rotation: Float[Tensor, "2 N 1 d"],
        text: KeysValues,
        beside: KeysValues | None = None,
    ) -> tuple[Float[Tensor, "B N D"], KeysValues]:
        """Tokens after the block, and their keys and values. Queries see these, and those of `beside`."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (level_vectors + self.modulation.float()).unbind(2)
        y = modulated(x, shift, scale, level, self.eps)
        own = self.self_attention.keys_values(y, rotation)
        seen = own if beside is None else own.and_also(beside)
        x = gated(x, gate, level, self.self_attention.read(self.self_attention.queries(y, rotation), seen))
        x = x + self.cross_attention.read(self.cross_attention.queries(self.cross_norm(x)), text)
        x = gated(x, ffn_gate, level, self.ffn(modulated(x, ffn_shift, ffn_scale, level, self.eps)))
        return x, own


class Head(nn.Module):
    """Out of the network's width, shifted and scaled by level."""

    def __init__(self, width: int, out: int, eps: float):
        super().__init__()
        self.eps = eps
        self.modulation = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.linear = nn.Linear(width, out)

    def forward(
        self, x: Float[Tensor, "B N D"], level_vector: Float[Tensor, "B K D"], level: Int[Tensor, " N"]
    ) -> Float[Tensor, "B N out"]:
        shift, scale = (level_vector.unsqueeze(2) + self.modulation.float()).unbind(2)
        return self.linear(modulated(x, shift, scale, level, self.eps))


def modulated(
    x: Float[Tensor, "B N D"],
    shift: Float[Tensor, "B K D"],
    scale: Float[Tensor, "B K D"],
    level: Int[Tensor, " N"],
    eps: float,
) -> Float[Tensor, "B N D"]:
    """Layer norm, its affine part given by each token's level (adaLN, arXiv 2212.09748); for a linear layer to read."""
    scaled = F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale).index_select(1, level)
    return for_linear(scaled + shift.index_select(1, level))


def gated(
    x: Float[Tensor, "B N D"], gate: Float[Tensor, "B K D"], level: Int[Tensor, " N"], update: Float[Tensor, "B N D"]
) -> Float[Tensor, "B N D"]:
    return torch.addcmul(x, gate.index_select(1, level), update.float())


def for_linear(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """In autocast's type at once, where each linear layer that reads it would cast it again."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
