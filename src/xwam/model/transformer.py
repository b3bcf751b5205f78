"""The world action transformer: Wan2.2's trunk over video, action and proprio tokens, and a branch for depth.

    video ─┐                    ┌─ block ─ … ─ block ─ … ─ block ─┬─ head ─ velocity of video
    action ├─ tokens, positions ┤                │ keys      │    ├─ decoder ─ velocity of action
    proprio┘                    └ video tokens ─ depth block … ───┴─ depth head ─ clean depth

First attention and the block, then the network. Axes: B batch, N tokens that ask, M tokens that are asked, h heads,
d entries of a head, K distinct noise levels, D width. Linear layers follow autocast; residuals, norms and modulation
stay in float32, as in Wan2.2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from xwam.core.streams import NoiseLevels, Streams
from xwam.model.config import TransformerConfig
from xwam.model.tokens import Layout, at_level, frequencies, level_of_token, patchify, rotations, unpatchify

# On a CPU the fused kernels lose to written-out scores where there are few keys, as of short texts, and gain nothing
# from bfloat16 while the scores fit its caches.
FEW_KEYS = 64
PLAIN_BFLOAT16_SCORES = 512 * 512


class KeysValues(NamedTuple):
    keys: Float[Tensor, "B M h d"]
    values: Float[Tensor, "B M h d"]

    def and_also(self, other: "KeysValues") -> "KeysValues":
        return KeysValues(torch.cat([self.keys, other.keys], dim=1), torch.cat([self.values, other.values], dim=1))


def attend(queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N h d"]:
    """softmax(q k / sqrt(d)) v, by whichever way is faster here."""
    keys = of.keys.shape[1]
    few = keys <= FEW_KEYS or (queries.dtype == torch.bfloat16 and queries.shape[1] * keys <= PLAIN_BFLOAT16_SCORES)
    plain = queries.device.type == "cpu" and few
    return attend_plain(queries, of) if plain else attend_fused(queries, of)


def attend_plain(queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N h d"]:
    q, k, v = (x.transpose(1, 2) for x in (queries * queries.shape[-1] ** -0.5, *of))
    return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2)


def attend_fused(queries: Float[Tensor, "B N h d"], of: KeysValues) -> Float[Tensor, "B N h d"]:
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (queries, *of))).transpose(1, 2)


def rotated(x: Float[Tensor, "B N h d"], rotation: Float[Tensor, "2 N 1 d"]) -> Float[Tensor, "B N h d"]:
    """Adjacent pairs of entries turned by each token's angles: (a, b) -> (a cos - b sin, b cos + a sin); float32."""
    # What compiles fuses the plain way, and nothing complex.
    return rotated_plain(x, rotation) if torch.compiler.is_compiling() else rotated_at_once(x, rotation)


def rotated_plain(x: Float[Tensor, "B N h d"], rotation: Float[Tensor, "2 N 1 d"]) -> Float[Tensor, "B N h d"]:
    x, (cosine, signed_sine) = x.float(), rotation
    partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cosine + partner * signed_sine


def rotated_at_once(x: Float[Tensor, "B N h d"], rotation: Float[Tensor, "2 N 1 d"]) -> Float[Tensor, "B N h d"]:
    """Pairs as complex numbers: one pass over memory instead of seven."""
    cosine, signed_sine = rotation
    turn = torch.complex(cosine[..., ::2], signed_sine[..., 1::2])
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * turn).flatten(-2)


def gelu(x: Float[Tensor, "*n"], by: Literal["tanh", "erf"] = "tanh") -> Float[Tensor, "*n"]:
    """GELU by tanh, as Wan was trained with, or exactly by erf.

    The tanh costs a CPU 2 to 4 times as much as the erf, and the two differ by less than bfloat16 can tell.
    """
    exact = by == "erf" or (x.device.type == "cpu" and x.dtype == torch.bfloat16)
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
    def __init__(self, width: int, inner: int, gelu_by: Literal["tanh", "erf"]):
        super().__init__()
        self.gelu_by = gelu_by
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
        return self.down(gelu(self.up(x), self.gelu_by))


class Coder(nn.Module):
    """Linear - GELU - Linear: into the network's width or out of it."""

    def __init__(self, inside: int, middle: int, outside: int):
        super().__init__()
        self.first, self.second = nn.Linear(inside, middle), nn.Linear(middle, outside)

    def forward(self, x: Float[Tensor, "*n Di"]) -> Float[Tensor, "*n Do"]:
        return self.second(gelu(self.first(x)))


class Block(nn.Module):
    """Self-attention, cross-attention to text, feed-forward; the first and last shifted, scaled and gated by level."""

    def __init__(self, width: int, ffn_width: int, heads: int, eps: float, gelu_by: Literal["tanh", "erf"]):
        super().__init__()
        self.eps = eps
        self.modulation = nn.Parameter(torch.randn(1, 6, width) / width**0.5)
        self.self_attention = Attention(width, heads, eps)
        self.cross_norm = LayerNorm(width, eps)
        self.cross_attention = Attention(width, heads, eps)
        self.ffn = FeedForward(width, ffn_width, gelu_by)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        level_vectors: Float[Tensor, "B K 6 D"],
        level: Int[Tensor, " N"],
        rotation: Float[Tensor, "2 N 1 d"],
        text: KeysValues | Float[Tensor, "B L D"],
        beside: KeysValues | None = None,
    ) -> tuple[Float[Tensor, "B N D"], KeysValues]:
        """Tokens after the block, and their keys and values. Queries see these, and those of `beside`.

        `text` is prepared, or as it is embedded.
        """
        if isinstance(text, Tensor):
            text = self.cross_attention.keys_values(text)
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
    scaled = F.layer_norm(x, x.shape[-1:], eps=eps) * at_level(1 + scale, level)
    return for_linear(scaled + at_level(shift, level))


def gated(
    x: Float[Tensor, "B N D"], gate: Float[Tensor, "B K D"], level: Int[Tensor, " N"], update: Float[Tensor, "B N D"]
) -> Float[Tensor, "B N D"]:
    return torch.addcmul(x, at_level(gate, level), update.float())


def for_linear(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """In autocast's type at once, where each linear layer that reads it would cast it again."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


# ---- the network -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextContext:
    """A text as every block's cross-attention reads it; prepared once a request, used in each step."""

    embedded: Float[Tensor, "B L D"]
    trunk: tuple[KeysValues, ...]
    depth_blocks: nn.ModuleList

    @cached_property
    def depth(self) -> tuple[KeysValues, ...]:
        """Computed when depth is first asked for: most calls never do."""
        return tuple(block.cross_attention.keys_values(self.embedded) for block in self.depth_blocks)


@dataclass(frozen=True)
class Conditions:
    """What modulates and places the tokens of one call, the same in every block."""

    level_vector: Float[Tensor, "B K D"]
    level_vectors: Float[Tensor, "B K 6 D"]
    level: Int[Tensor, " N"]
    rotation: Float[Tensor, "2 N 1 d"]


class WorldActionTransformer(nn.Module):
    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width = config.width
        patch_entries = config.latent_channels * config.patch[1] * config.patch[2]
        self.patch_embedding = PatchEmbedding(config.latent_channels, width, config.patch, stride=config.patch)
        self.view_embedding = nn.Embedding(config.views, width)
        self.text_embedding = Coder(config.text_width, width, width)
        frequencies_in, mix = PreciseLinear(config.frequency_width, width), PreciseLinear(width, width)
        self.time_embedding = nn.Sequential(frequencies_in, nn.SiLU(), mix)
        self.time_projection = nn.Sequential(nn.SiLU(), PreciseLinear(width, 6 * width))
        self.action_encoder = self._new_coder(config.action_width, width)
        self.action_decoder = self._new_coder(width, config.action_width)
        self.proprio_encoder = self._new_coder(config.proprio_width, width)
        self.proprio_decoder = self._new_coder(width, config.proprio_width)
        self.blocks = self._new_blocks(config.blocks)
        self.head = Head(width, patch_entries, config.eps)
        self.depth_blocks = self._new_blocks(config.depth_blocks)
        self.depth_head = Head(width, patch_entries, config.eps) if config.depth_blocks else None
        self.initialise()

    def _new_blocks(self, number: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(Block(c.width, c.ffn_width, c.heads, c.eps, c.ffn_gelu) for _ in range(number))

    def _new_coder(self, inside: int, outside: int) -> Coder | None:
        return Coder(inside, self.config.width, outside) if self.config.acts else None

    def initialise(self) -> None:
        """As Wan2.2: the network's answer starts at 0, and the depth branch as a copy of the trunk's end."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for part in (self.text_embedding, self.time_embedding, self.view_embedding):
            for name, parameter in part.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(parameter, std=0.02)
        decoders = (self.action_decoder, self.proprio_decoder) if self.config.acts else ()
        for last in (self.head.linear, *(decoder.second for decoder in decoders)):
            nn.init.zeros_(last.weight)
        self.copy_trunk_to_depth()

    def copy_trunk_to_depth(self) -> None:
        """Gives the depth branch the weights of the trunk's last blocks and of its head."""
        if self.depth_head is not None:
            self.depth_blocks.load_state_dict(self.blocks[-len(self.depth_blocks) :].state_dict())
            self.depth_head.load_state_dict(self.head.state_dict())

    def prepare_text(self, text: Float[Tensor, "B L text_width"]) -> TextContext:
        """Text embeddings, padded to the length that the network knows, to keys and values."""
        embedded = self._embed_text(text)
        trunk = tuple(block.cross_attention.keys_values(embedded) for block in self.blocks)
        return TextContext(embedded, trunk, self.depth_blocks)

    def forward(
        self,
        streams: Streams,
        levels: NoiseLevels,
        text: TextContext | Float[Tensor, "B L text_width"],
        with_depth: bool = False,
    ) -> Streams:
        """Velocities (noise - clean) of video, action and proprio; the clean depth latent if asked for.

        All but the depth is bit for bit the same with depth and without it. A text that is read once, as in training,
        need not be prepared: each block then makes its keys and values as it runs, and need not keep them.
        """
        if with_depth and self.depth_head is None:
            raise ValueError("this network has no depth branch; ask without depth, or build it with depth_blocks > 0")
        layout = Layout.of(streams, self.config)
        conditions = self._conditions(levels, layout)
        x, depth = self._through_blocks(self._embed(streams, layout), conditions, text, layout.video, with_depth)
        video, *vectors = x.split(layout.lengths, dim=1)
        level = conditions.level[: layout.video]
        patch = self.config.patch
        if depth is not None:
            depth = unpatchify(self.depth_head(depth, conditions.level_vector, level), layout, patch)
        return Streams(
            video=unpatchify(self.head(video, conditions.level_vector, level), layout, patch),
            **self._decoded(streams, *vectors),
            depth=depth,
        )

    def _embed_text(self, text: Float[Tensor, "B L text_width"]) -> Float[Tensor, "B L D"]:
        padding = self.config.text_tokens - text.shape[1]
        if padding < 0:
            raise ValueError(f"a text of {text.shape[1]} tokens; cut it to text_tokens = {self.config.text_tokens}")
        return self.text_embedding(F.pad(text, (0, 0, 0, padding)))

    def _embed(self, streams: Streams, layout: Layout) -> Float[Tensor, "B N D"]:
        video = self.patch_embedding(patchify(streams.video, self.config.patch))
        views = self.view_embedding.weight[: layout.views].repeat_interleave(layout.rows * layout.columns, dim=0)
        video = video + views.repeat(layout.frames, 1)
        if not self.config.acts:
            return video.float()
        return torch.cat(
            [video, self.action_encoder(streams.action), self.proprio_encoder(streams.proprio)], dim=1
        ).float()

    def _decoded(self, streams: Streams, action: Tensor, proprio: Tensor) -> dict[str, Tensor]:
        if not self.config.acts:
            return {"action": streams.action, "proprio": streams.proprio}
        return {"action": self.action_decoder(action), "proprio": self.proprio_decoder(proprio)}

    def _conditions(self, levels: NoiseLevels, layout: Layout) -> Conditions:
        vector = self.time_embedding(frequencies(levels.values, self.config.frequency_width))
        vectors = self.time_projection(vector).unflatten(-1, (6, -1))
        rotation = rotations(layout, self.config.actions_per_frame, self.config.head_width, vector.device)
        return Conditions(vector, vectors, level_of_token(levels, layout), rotation)

    def _through_blocks(
        self, x: Float[Tensor, "B N D"], c: Conditions, text: TextContext | Tensor, video_tokens: int, with_depth: bool
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B Nv D"] | None]:
        """The trunk, and beside its last blocks the depth branch, which reads the trunk's keys and is never read."""
        plain = self._embed_text(text) if isinstance(text, Tensor) else None
        first_twin = len(self.blocks) - len(self.depth_blocks) if with_depth else len(self.blocks)
        depth = None
        for i, block in enumerate(self.blocks):
            if i == first_twin:
                depth = x[:, :video_tokens]
            x, trunk = block(x, c.level_vectors, c.level, c.rotation, text.trunk[i] if plain is None else plain)
            if depth is not None:
                twin = i - first_twin
                depth, _ = self.depth_blocks[twin](
                    depth,
                    c.level_vectors,
                    c.level[:video_tokens],
                    c.rotation[:, :video_tokens],
                    text.depth[twin] if plain is None else plain,
                    trunk,
                )
        return x, depth


class PatchEmbedding(nn.Conv3d):
    """A convolution whose stride is its kernel, and so a linear layer on patches; keeps Wan's shape of weights."""

    def forward(self, patches: Float[Tensor, "B N entries"]) -> Float[Tensor, "B N D"]:
        return F.linear(patches, self.weight.flatten(1), self.bias)
