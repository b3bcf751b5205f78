"""The world action transformer: Wan2.2's trunk over video, action and proprio tokens, and a branch for depth.

video ─┐                    ┌─ block ─ … ─ block ─ … ─ block ─┬─ head ─ velocity of video
action ├─ tokens, positions ┤                │ keys      │    ├─ decoder ─ velocity of action
proprio┘                    └ video tokens ─ depth block … ───┴─ depth head ─ clean depth
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from xwam.core.streams import NoiseLevels, Streams
from xwam.model.blocks import Block, Coder, Head, KeysValues, PreciseLinear
from xwam.model.config import TransformerConfig
from xwam.model.tokens import Layout, frequencies, level_of_token, patchify, rotations, unpatchify


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
        self.action_encoder = Coder(config.action_width, width, width)
        self.action_decoder = Coder(width, width, config.action_width)
        self.proprio_encoder = Coder(config.proprio_width, width, width)
        self.proprio_decoder = Coder(width, width, config.proprio_width)
        self.blocks = self._new_blocks(config.blocks)
        self.head = Head(width, patch_entries, config.eps)
        self.depth_blocks = self._new_blocks(config.depth_blocks)
        self.depth_head = Head(width, patch_entries, config.eps) if config.depth_blocks else None
        self.initialise()

    def _new_blocks(self, number: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(Block(c.width, c.ffn_width, c.heads, c.eps) for _ in range(number))

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
        for last in (self.head.linear, self.action_decoder.second, self.proprio_decoder.second):
            nn.init.zeros_(last.weight)
        self.copy_trunk_to_depth()

    def copy_trunk_to_depth(self) -> None:
        """Gives the depth branch the weights of the trunk's last blocks and of its head."""
        if self.depth_head is not None:
            self.depth_blocks.load_state_dict(self.blocks[-len(self.depth_blocks) :].state_dict())
            self.depth_head.load_state_dict(self.head.state_dict())

    def prepare_text(self, text: Float[Tensor, "B L text_width"]) -> TextContext:
        """Text embeddings, padded to the length that the network knows, to keys and values."""
        padding = self.config.text_tokens - text.shape[1]
        if padding < 0:
            raise ValueError(f"a text of {text.shape[1]} tokens; cut it to text_tokens = {self.config.text_tokens}")
        embedded = self.text_embedding(F.pad(text, (0, 0, 0, padding)))
        trunk = tuple(block.cross_attention.keys_values(embedded) for block in self.blocks)
        return TextContext(embedded, trunk, self.depth_blocks)

    def forward(self, streams: Streams, levels: NoiseLevels, text: TextContext, with_depth: bool = False) -> Streams:
        """Velocities (noise - clean) of video, action and proprio; the clean depth latent if asked for.

        All but the depth is bit for bit the same with depth and without it.
        """
        if with_depth and self.depth_head is None:
            raise ValueError("this network has no depth branch; ask without depth, or build it with depth_blocks > 0")
        layout = Layout.of(streams, self.config)
        conditions = self._conditions(levels, layout)
        x, depth = self._through_blocks(self._embed(streams, layout), conditions, text, layout.video, with_depth)
        video, action, proprio = x.split(layout.lengths, dim=1)
        level = conditions.level[: layout.video]
        patch = self.config.patch
        if depth is not None:
            depth = unpatchify(self.depth_head(depth, conditions.level_vector, level), layout, patch)
        return Streams(
            video=unpatchify(self.head(video, conditions.level_vector, level), layout, patch),
            action=self.action_decoder(action),
            proprio=self.proprio_decoder(proprio),
            depth=depth,
        )

    def _embed(self, streams: Streams, layout: Layout) -> Float[Tensor, "B N D"]:
        video = self.patch_embedding(patchify(streams.video, self.config.patch))
        views = self.view_embedding.weight[: layout.views].repeat_interleave(layout.rows * layout.columns, dim=0)
        video = video + views.repeat(layout.frames, 1)
        return torch.cat(
            [video, self.action_encoder(streams.action), self.proprio_encoder(streams.proprio)], dim=1
        ).float()

    def _conditions(self, levels: NoiseLevels, layout: Layout) -> Conditions:
        vector = self.time_embedding(frequencies(levels.values, self.config.frequency_width))
        vectors = self.time_projection(vector).unflatten(-1, (6, -1))
        rotation = rotations(layout, self.config.actions_per_frame, self.config.head_width, vector.device)
        return Conditions(vector, vectors, level_of_token(levels, layout), rotation)

    def _through_blocks(
        self, x: Float[Tensor, "B N D"], c: Conditions, text: TextContext, video_tokens: int, with_depth: bool
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B Nv D"] | None]:
        """The trunk, and beside its last blocks the depth branch, which reads the trunk's keys and is never read."""
        first_twin = len(self.blocks) - len(self.depth_blocks) if with_depth else len(self.blocks)
        depth = None
        for i, block in enumerate(self.blocks):
            if i == first_twin:
                depth = x[:, :video_tokens]
            x, trunk = block(x, c.level_vectors, c.level, c.rotation, text.trunk[i])
            if depth is not None:
                twin = i - first_twin
                depth, _ = self.depth_blocks[twin](
                    depth,
                    c.level_vectors,
                    c.level[:video_tokens],
                    c.rotation[:, :video_tokens],
                    text.depth[twin],
                    trunk,
                )
        return x, depth


class PatchEmbedding(nn.Conv3d):
    """A convolution whose stride is its kernel, and so a linear layer on patches; keeps Wan's shape of weights."""

    def forward(self, patches: Float[Tensor, "B N entries"]) -> Float[Tensor, "B N D"]:
        return F.linear(patches, self.weight.flatten(1), self.bias)
