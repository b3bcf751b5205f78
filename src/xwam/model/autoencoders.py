"""Video to latents and back: the protocol, and the small causal autoencoder that nano uses.

Frames enter as the first alone and then four to a latent: F = 1 + 4 (T - 1) frames give T latents.
Axes: B batch, F video frames, T latent frames, C latent channels, H W pixels, h w latent rows and columns.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from xwam.core.config import Frozen
from xwam.model.config import FRAMES_PER_LATENT


@runtime_checkable
class VideoAutoencoder(Protocol):
    """Anything that turns video in [-1, 1] into latents of about unit variance, and back."""

    channels: int
    spatial_stride: int

    def encode(self, video: Float[Tensor, "B 3 F H W"]) -> Float[Tensor, "B C T h w"]: ...

    def decode(self, latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "B 3 F H W"]: ...

    def encode_windows(
        self, video: Float[Tensor, "B 3 F H W"], windows: Int[np.ndarray, "N f"]
    ) -> Float[Tensor, "N B C T h w"]: ...


class SmallAutoencoderConfig(Frozen):
    """Sizes of the small autoencoder; it halves the image four times."""

    channels: int = 32
    widths: tuple[int, int, int] = (48, 96, 160)
    latent_noise: float = 0.1


class SmallAutoencoder(nn.Module):
    """A convolutional autoencoder whose latent k holds its own four frames only, and whose decoder also sees latent 0.

    Static detail so comes from the given frame, and a group of frames is encoded once however many clips share it.
    """

    spatial_stride = 16

    def __init__(self, config: SmallAutoencoderConfig):
        super().__init__()
        self.config, self.channels = config, config.channels
        c, w = config.channels, config.widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, w[0], 3, padding=1), ResidualBlock(w[0]),
            nn.Conv2d(w[0], w[1], 3, stride=2, padding=1), ResidualBlock(w[1]),
            nn.Conv2d(w[1], w[2], 3, stride=2, padding=1), ResidualBlock(w[2]),
        )  # fmt: skip
        self.first_to_latent = nn.Conv2d(w[2], c, 1)
        self.group_to_latent = nn.Sequential(nn.Conv2d(4 * w[2], w[2], 1), ResidualBlock(w[2]), nn.Conv2d(w[2], c, 1))
        self.first_from_latent = nn.Conv2d(c, w[2], 3, padding=1)
        self.group_from_latent = nn.Sequential(
            nn.Conv2d(2 * c, 2 * w[2], 3, padding=1), nn.SiLU(), nn.Conv2d(2 * w[2], 4 * w[2], 1)
        )
        self.decoder = nn.Sequential(
            ResidualBlock(w[2]), nn.Conv2d(w[2], 4 * w[1], 1), nn.PixelShuffle(2),
            ResidualBlock(w[1]), nn.Conv2d(w[1], 4 * w[0], 1), nn.PixelShuffle(2),
            ResidualBlock(w[0]), ResidualBlock(w[0]), nn.Conv2d(w[0], 48, 3, padding=1), nn.PixelShuffle(4),
        )  # fmt: skip
        self.register_buffer("latent_mean", torch.zeros(c))
        self.register_buffer("latent_std", torch.ones(c))

    def encode(self, video: Float[Tensor, "B 3 F H W"]) -> Float[Tensor, "B C T h w"]:
        """Latents with zero mean and unit variance per channel over the training data."""
        return self._standardise(self._latents(self._frame_features(video)))

    def decode(self, latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "B 3 F H W"]:
        """Video in [-1, 1]."""
        return self._decode(latents * _column(self.latent_std) + _column(self.latent_mean)).clamp(-1, 1)

    def encode_windows(
        self, video: Float[Tensor, "B 3 F H W"], windows: Int[np.ndarray, "N f"]
    ) -> Float[Tensor, "N B C T h w"]:
        """Latents of N clips of a video, each of these frames of it.

        Equals `encode` of each clip, but every frame passes the convolutions once, however many clips hold it.
        """
        features = self._frame_features(video)
        return torch.stack([self._standardise(self._latents(features[:, :, clip])) for clip in windows])

    def counts(self, video: UInt8[Tensor, "B 3 F H W"], seeds: Sequence[int]) -> Int[Tensor, "1"]:
        """How many samples `loss` is a mean over."""
        return torch.tensor([len(video)])

    def tokens(self, video: UInt8[Tensor, "B 3 F H W"]) -> int:
        """How many places the video's latents have."""
        samples, _, frames, height, width = video.shape
        latent_frames = 1 + (frames - 1) // FRAMES_PER_LATENT
        return samples * latent_frames * (height // self.spatial_stride) * (width // self.spatial_stride)

    def loss(
        self, video: UInt8[Tensor, "B 3 F H W"], seeds: Sequence[int], counts: Int[Tensor, "1"] | None = None
    ) -> dict[str, Tensor]:
        """Reconstruction with weight on what is small, plus a pull of the latents to unit scale.

        The noise of sample b comes from seeds[b]. With the `counts` of a larger batch, the share of this part of it.
        """
        target = video.float() / 127.5 - 1
        latents = self._latents(self._frame_features(target))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for generator in generators])
        decoded = self._decode(latents + self.config.latent_noise * noise.to(latents.device))
        error = (decoded - target).abs().mean(1, keepdim=True).float()
        reconstruction = (error * detail_weight(target)).mean()
        hardest = error.flatten(1).topk(error[0].numel() // 50, dim=1).values.mean()
        scale = latents.float().square().mean()
        total = reconstruction + 0.25 * hardest + 1e-3 * scale
        means = {"total": total, "weighted": reconstruction, "hardest": hardest, "plain": error.mean(), "scale": scale}
        return means if counts is None else {name: x * len(video) / counts.item() for name, x in means.items()}

    @torch.no_grad()
    def fit_latent_statistics(self, video: Float[Tensor, "B 3 F H W"]) -> None:
        """Sets the latents' mean and standard deviation per channel from sample videos."""
        latents = self._latents(self._frame_features(video)).float()
        self.latent_mean.copy_(latents.mean((0, 2, 3, 4)))
        self.latent_std.copy_(latents.std((0, 2, 3, 4)))

    def _frame_features(self, video: Float[Tensor, "B 3 F H W"]) -> Float[Tensor, "B c F h w"]:
        if video.shape[-1] % 16 or video.shape[-2] % 16:
            raise ValueError(f"images of {video.shape[-2]} x {video.shape[-1]}: both sides must be multiples of 16")
        frames = rearrange(video, "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        return rearrange(self.encoder(frames), "(b f) c h w -> b c f h w", b=video.shape[0])

    def _latents(self, features: Float[Tensor, "B c F h w"]) -> Float[Tensor, "B C T h w"]:
        if (features.shape[2] - 1) % FRAMES_PER_LATENT:
            raise ValueError(f"{features.shape[2]} frames: need 1 + a multiple of {FRAMES_PER_LATENT}")
        first = self.first_to_latent(features[:, :, 0])[:, :, None]
        if features.shape[2] == 1:
            return first
        groups = rearrange(features[:, :, 1:], "b c (t k) h w -> (b t) (k c) h w", k=FRAMES_PER_LATENT)
        later = rearrange(self.group_to_latent(groups), "(b t) c h w -> b c t h w", b=features.shape[0])
        return torch.cat([first, later], dim=2)

    def _decode(self, latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "B 3 F H W"]:
        batch, first, later = latents.shape[0], latents[:, :, :1], latents[:, :, 1:]
        features = self.first_from_latent(first[:, :, 0])[:, None]
        if later.shape[2]:
            pairs = torch.cat([later, first.expand_as(later)], dim=1)
            groups = self.group_from_latent(rearrange(pairs, "b c t h w -> (b t) c h w"))
            groups = rearrange(groups, "(b t) (k c) h w -> b (t k) c h w", b=batch, k=FRAMES_PER_LATENT)
            features = torch.cat([features, groups], dim=1)
        frames = self.decoder(
            rearrange(features, "b f c h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        )
        return rearrange(frames, "(b f) c h w -> b c f h w", b=batch)

    def _standardise(self, latents: Float[Tensor, "B C T h w"]) -> Float[Tensor, "B C T h w"]:
        return (latents - _column(self.latent_mean)) / _column(self.latent_std)


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x)))))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        return x + self.conv_out(F.silu(self.conv_in(F.silu(self.norm(x)))))


def detail_weight(video: Float[Tensor, "B 3 F H W"], block: int = 16) -> Float[Tensor, "B 1 F H W"]:
    """Weight of each pixel: 1 + 8 c + 40 c^2, c its contrast to the mean colour of about `block` pixels around it.

    A goal marker of a few pixels differs from its surroundings as a whole, a large object at its border only;
    the mean error alone would let the marker vanish.
    """
    frames = rearrange(video, "b c f h w -> (b f) c h w").contiguous()
    # Means of blocks, interpolated: a mean around every pixel would cost more than the network.
    around = F.interpolate(F.avg_pool2d(frames, block), size=frames.shape[-2:], mode="bilinear")
    contrast = (frames - around).abs().amax(1, keepdim=True)
    contrast = rearrange(contrast, "(b f) c h w -> b c f h w", b=video.shape[0])
    return 1 + 8 * contrast + 40 * contrast.square()


def _column(values: Float[Tensor, " C"]) -> Float[Tensor, "C 1 1 1"]:
    return values[:, None, None, None]
