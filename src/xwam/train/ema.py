"""A moving average of the trained weights; validation and export use it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xwam.train.parallel import local


def decay_at(update: int, decay: float) -> float:
    """Decay of update `update` (from 0); small at first, so that a short run soon forgets its initial weights."""
    return min(decay, (1 + update) / (10 + update))


class Ema:
    """average <- decay * average + (1 - decay) * weight, for each trained parameter of `model`, sharded as it is."""

    def __init__(self, model: nn.Module, decay: float):
        self.model = model
        self.decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._weights.items()}

    @property
    def names(self) -> list[str]:
        """Names of the trained parameters."""
        return list(self._weights)

    @property
    def weights(self) -> list[Tensor]:
        """The model's trained parameters."""
        return list(self._weights.values())

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Takes in the weights after update `update` (from 0)."""
        weight = 1 - decay_at(update, self.decay)
        averages, weights = zip(*self._pairs(), strict=True)
        torch._foreach_lerp_(averages, weights, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averages inside this block and its own weights again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """The model's complete state with the averages in the place of its trained weights, all in their own memory."""
        return {**self.model.state_dict(), **self._averages}

    @torch.no_grad()
    def _swap(self) -> None:
        for average, weight in self._pairs():  # in place: the shards' memory is known to the sharded model
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's part of each average and of its weight."""
        for name, weight in self._weights.items():
            yield local(self._averages[name]), local(weight)
