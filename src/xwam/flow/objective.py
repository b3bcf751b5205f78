"""Noise put in, and the loss of taking it out (X-WAM, arXiv 2604.26694; rectified flow, arXiv 2209.03003)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xwam.core.streams import Batch, NoiseLevels, Streams, Velocity
from xwam.flow.levels import Fixed, Law, levels_of
from xwam.flow.sampler import generators_of, noise_from

COUNTED = ("video", "action", "proprio", "depth")  # the order of counts


@dataclass(frozen=True)
class LossWeights:
    video: float = 1.0
    action: float = 1.0
    proprio: float = 1.0
    depth: float = 1.0


@dataclass(frozen=True)
class Losses:
    """Mean squared errors, unweighted: of velocities, and of a branch's clean depth; `total` is their weighted sum."""

    video: Float[Tensor, ""]
    action: Float[Tensor, ""]
    proprio: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    total: Float[Tensor, ""]


def corrupt(clean: Streams, noise: Streams, levels: NoiseLevels) -> Streams:
    """x = (1 - sigma) * clean + sigma * noise, each element at its own level; depth only where it has a level."""

    def mixed(name: str) -> Tensor:
        x, sigma = getattr(clean, name), _spread(levels.of(name), name)
        return (1 - sigma) * x + sigma * getattr(noise, name)

    return Streams(
        video=mixed("video"),
        action=mixed("action"),
        proprio=mixed("proprio"),
        depth=None if levels.depth is None else mixed("depth"),
    )


def targets_of(clean: Streams, noise: Streams, denoise_depth: bool = False) -> Streams:
    """What the network should answer: velocities noise - clean, and of depth that is not denoised, the clean latent."""
    return Streams(
        video=noise.video - clean.video,
        action=noise.action - clean.action,
        proprio=noise.proprio - clean.proprio,
        depth=noise.depth - clean.depth if denoise_depth else clean.depth,
    )


def losses(
    prediction: Streams,
    targets: Streams,
    batch: Batch,
    levels: NoiseLevels,
    weights: LossWeights = LossWeights(),
    counts: Int[Tensor, "4"] | None = None,
) -> Losses:
    """Each stream's mean over the elements that count, 0 where none does.

    An element counts if it is noisy (what is given needs no velocity) and valid; a depth latent counts where
    depth was measured. If the batch is a part of a larger one, `counts` are those of the whole: each loss is then
    the part's share in that of the whole, and the shares of all parts add up to it.
    """
    counts = counts_at(batch, levels) if counts is None else counts
    counting = _counting(batch, levels)
    means = {}
    for name, count in zip(COUNTED, counts.clamp(min=1), strict=True):
        x, y = getattr(prediction, name), getattr(targets, name)
        known = x is not None and y is not None
        means[name] = _square_sum(x, y, counting[name]) / count if known else prediction.video.new_zeros(()).float()
    total = sum(getattr(weights, name) * mean for name, mean in means.items())
    return Losses(**means, total=total)


def training_loss(
    velocity: Velocity,
    batch: Batch,
    law: Law | Fixed,
    seeds: Sequence[int],
    weights: LossWeights = LossWeights(),
    counts: Int[Tensor, "4"] | None = None,
    denoise_depth: bool = False,
) -> Losses:
    """The loss of one batch; what is random in sample b comes from seeds[b] alone.

    The first latent frame and first proprio are given. Depth goes in noisy with `denoise_depth`; otherwise a branch is
    asked for it if any of it counts and the loss weighs it. `counts` is that of `losses`.
    """
    generators = generators_of(batch.streams, seeds)
    levels = _levels(batch, law, generators, denoise_depth)
    counts = counts_at(batch, levels) if counts is None else counts
    with_depth = weights.depth > 0 and bool(counts[COUNTED.index("depth")] > 0)
    if (with_depth or denoise_depth) and batch.streams.depth is None:
        batch = _with_unknown_depth(batch)
    noise = _noise(batch, generators, denoise_depth)
    prediction = velocity(corrupt(batch.streams, noise, levels), levels, with_depth)
    return losses(prediction, targets_of(batch.streams, noise, denoise_depth), batch, levels, weights, counts)


def counts_of(batch: Batch, law: Law, seeds: Sequence[int]) -> Int[Tensor, "4"]:
    """How many elements of video, action, proprio and depth `training_loss` is a mean over; parts' counts add up."""
    return counts_at(batch, _levels(batch, law, generators_of(batch.streams, seeds)))


def counts_at(batch: Batch, levels: NoiseLevels) -> Int[Tensor, "4"]:
    """`counts_of` at known levels."""
    counts = []
    for name, counting in _counting(batch, levels).items():
        stream = getattr(batch.streams, name)
        spread = 0 if stream is None else stream.numel() // max(counting.numel(), 1)  # a stream may be empty
        counts.append(counting.sum() * spread)
    return torch.stack(counts)


def _counting(batch: Batch, levels: NoiseLevels) -> dict[str, Bool[Tensor, "..."]]:
    """Which elements of each stream count, in shapes that broadcast over it."""
    video, action, proprio = (_spread(levels.of(name), name) > 0 for name in COUNTED[:3])
    counting = (video, action & batch.action_valid, proprio & batch.proprio_valid, batch.depth_valid[:, None])
    return dict(zip(COUNTED, counting, strict=True))


def _levels(batch: Batch, law: Law | Fixed, generators: Sequence[torch.Generator], depth: bool = False) -> NoiseLevels:
    uniforms = torch.stack([torch.rand(law.dice, generator=generator) for generator in generators], dim=1)
    return levels_of(batch.streams, *law.levels(uniforms.to(batch.streams.action.device)), depth)


def _with_unknown_depth(batch: Batch) -> Batch:
    """A part without depth of a batch with it: it makes depth too, as ranks that share a batch all must."""
    streams = replace(batch.streams, depth=torch.zeros_like(batch.streams.video))
    return replace(batch, streams=streams, depth_valid=torch.zeros_like(batch.depth_valid))


def _noise(batch: Batch, generators: Sequence[torch.Generator], depth: bool) -> Streams:
    """Gaussian noise, but 0 at invalid entries: they are 0 at every level, in training as in sampling."""
    noise = noise_from(generators, batch.streams if depth else replace(batch.streams, depth=None))
    return replace(noise, action=noise.action * batch.action_valid, proprio=noise.proprio * batch.proprio_valid)


def _spread(values: Float[Tensor, "B n"], stream: str) -> Tensor:
    """One value an element in time, in a shape that broadcasts over the stream's other axes."""
    return values[:, None, :, None, None, None] if stream in ("video", "depth") else values[:, :, None]


def _square_sum(x: Tensor, y: Tensor, counting: Bool[Tensor, "..."]) -> Float[Tensor, ""]:
    """Sum of (x - y)^2 where `counting`, which broadcasts; in float32, whatever the network computes in."""
    error = torch.where(counting, x.float() - y.float(), 0.0)  # before the square: no NaN flows back from the rest
    return error.square().sum()
