"""The network's sizes; torch-free, so a run can be described where torch is absent."""

from typing import Literal, Self

from pydantic import model_validator

from xwam.core.config import Frozen

FRAMES_PER_LATENT = 4  # video frames that one latent frame after the first stands for


class TransformerConfig(Frozen):
    """Sizes of a `WorldActionTransformer`; the trunk's are Wan2.2's, and every stream's are its data's."""

    width: int
    ffn_width: int
    heads: int
    blocks: int
    depth: Literal["branch", "channels", "sequence"] = "branch"  # whether depth is regressed beside the trunk or in it
    depth_blocks: int = 0  # of the branch: the last so many blocks have a twin for depth; 0: no depth
    views: int  # at most; a call may bring fewer
    latent_channels: int
    patch: tuple[int, int, int] = (1, 2, 2)  # latent frames, rows and columns of a token
    text_width: int
    text_tokens: int  # shorter texts are padded with zeros to this length, which the network was trained to see
    frequency_width: int = 256  # sines and cosines that tell a noise level
    action_width: int  # 0, and so is proprio_width: a video prior, whose sequence has no actions and no proprios
    actions_per_frame: int  # actions between two video frames
    proprio_width: int
    ffn_gelu: Literal["tanh", "erf"] = "tanh"  # Wan's is by tanh, which costs a CPU over twice as much
    eps: float = 1e-6

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"{self.heads} heads do not split width {self.width} into even parts; change either")
        if not 0 <= self.depth_blocks <= self.blocks:
            raise ValueError(f"depth_blocks is {self.depth_blocks}; give 0 to {self.blocks}, the number of blocks")
        if (self.action_width == 0) != (self.proprio_width == 0):
            widths = f"action_width is {self.action_width} and proprio_width {self.proprio_width}"
            raise ValueError(f"{widths}; give both, or 0 for both: a video prior")
        if self.denoises_depth and self.depth_blocks:
            raise ValueError(
                f"depth is denoised as {self.depth} and needs no depth_blocks, which is for the branch: give 0"
            )
        if self.patch[0] != 1:
            raise ValueError(
                f"patch is {self.patch}; a token covers one latent frame, because each has its noise level"
            )
        return self

    @property
    def acts(self) -> bool:
        """Whether actions and proprios are in the sequence; a video prior has none."""
        return self.action_width > 0

    @property
    def denoises_depth(self) -> bool:
        """Whether depth is a stream that goes in noisy, as the video does, and not what a branch makes of the trunk."""
        return self.depth != "branch"

    @property
    def has_depth(self) -> bool:
        return self.denoises_depth or self.depth_blocks > 0

    @property
    def head_width(self) -> int:
        return self.width // self.heads
