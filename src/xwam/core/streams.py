"""What the network reads and writes: four streams, and a noise level for each of their elements.

Axes: B batch, C latent channels, T latent frames, V views, H W latent rows and columns,
A actions, P proprioceptive states, D entries of a vector, L text tokens, K distinct noise levels.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """Values of each stream: data, noise, a mixture of both, a velocity, or a prediction.

    `depth` holds depth latents: where a branch predicts them clean, an output of the network and a training target,
    never an input; where they are denoised with the video (`TransformerConfig.depth`), a stream like the others.
    """

    video: Float[Tensor, "B C T V H W"]
    action: Float[Tensor, "B A Da"]
    proprio: Float[Tensor, "B P Dp"]
    depth: Float[Tensor, "B C T V H W"] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Applies `function` to every stream that is present."""
        present = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: function(x) for name, x in present.items() if x is not None})

    def to(self, *args, **kwargs) -> Self:
        return self.map(lambda x: x.to(*args, **kwargs))


@dataclass(frozen=True)
class NoiseLevels:
    """Noise level sigma of each element in time: 1 is pure noise, 0 is clean.

    Few levels are distinct in a call (clean, video's, action's), so they are stored once per sample in
    `values` and each element says which one it has; the network computes its modulation per level.
    Row and column never matter: all tokens of a latent frame share its level, in all views. `depth` is None where
    depth is not denoised.
    """

    values: Float[Tensor, "B K"]
    video: Int[Tensor, " T"]
    action: Int[Tensor, " A"]
    proprio: Int[Tensor, " P"]
    depth: Int[Tensor, " T"] | None = None

    @classmethod
    def of_elements(
        cls, video: Float[Tensor, "B T"], action: Float[Tensor, "B A"], proprio: Float[Tensor, "B P"]
    ) -> Self:
        """Levels given one by one, each stored apart: the plain twin of a short table."""
        T, A, P = video.shape[1], action.shape[1], proprio.shape[1]
        ids = torch.arange(T + A + P, device=video.device)
        values = torch.cat([video, action, proprio], dim=1)
        return cls(values, ids[:T], ids[T : T + A], ids[T + A :])

    @classmethod
    def of_streams(
        cls,
        video: Float[Tensor, " B"],
        action: Float[Tensor, " B"],
        frames: int,
        actions: int,
        proprios: int,
        depth: bool = False,
    ) -> Self:
        """One level for the video and one for actions and proprios; the first frame and first proprio are given.

        Denoised `depth` shares the video's level in all frames, the first too: no camera measures it for the model.
        """
        device = video.device
        values = torch.stack([torch.zeros_like(video), video, action], dim=1)
        video_ids = torch.ones(frames, dtype=torch.long, device=device)
        depth_ids = video_ids.clone() if depth else None
        proprio_ids = torch.full((proprios,), 2, dtype=torch.long, device=device)
        video_ids[:1] = proprio_ids[:1] = 0
        action_ids = torch.full((actions,), 2, dtype=torch.long, device=device)
        return cls(values, video_ids, action_ids, proprio_ids, depth_ids)

    def of(self, stream: str) -> Float[Tensor, "B n"]:
        """Sigma of each element of `stream`."""
        return self.values[:, getattr(self, stream)]


@dataclass(frozen=True)
class Batch:
    """Training samples in the network's units: latents, normalised vectors, instructions.

    `depth_valid` says which depth latents were measured; the others carry no loss.
    """

    streams: Streams
    action_valid: Bool[Tensor, "B A Da"]
    proprio_valid: Bool[Tensor, "B P Dp"]
    depth_valid: Bool[Tensor, "B T V h w"]
    instructions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.instructions)

    def __getitem__(self, samples: slice) -> Self:
        """Some of the samples, as a batch."""
        chosen = {f.name: getattr(self, f.name)[samples] for f in fields(self) if f.name != "streams"}
        return replace(self, streams=self.streams.map(lambda x: x[samples]), **chosen)

    def of_video(self) -> Self:
        """The same samples without actions and proprios, as a video prior sees them."""
        cut = replace(self.streams, action=self.streams.action[:, :0, :0], proprio=self.streams.proprio[:, :0, :0])
        valid = {"action_valid": self.action_valid[:, :0, :0], "proprio_valid": self.proprio_valid[:, :0, :0]}
        return replace(self, streams=cut, **valid)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._with_tensors(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same in memory of the host that a GPU copies from by itself; torch's loaders ask for it by this name."""
        return self._with_tensors(lambda x: x.contiguous().pin_memory())

    def _with_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        masks = {name: function(getattr(self, name)) for name in ("action_valid", "proprio_valid", "depth_valid")}
        return replace(self, streams=self.streams.map(function), **masks)


# velocity(noisy streams, their levels, with_depth) -> velocities of video, action and proprio, and of depth if it is
# among the noisy streams; otherwise clean depth if asked
Velocity = Callable[[Streams, NoiseLevels, bool], Streams]
