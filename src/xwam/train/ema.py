"""A moving average of the trained weights; validation and export use it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def decay_at(update: int, decay: float) -> float:
    """Decay of update `update` (from 0); small at first, so that a short run soon forgets its initial weights."""
    return min(decay, (1 + update) / (10 + update))


class Ema:
    """average <- decay * average + (1 - decay) * weight, for each trained parameter of `model`."""

    def __init__(self, model: nn.Module, decay: float):
        self.model = model
        self.decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._weights.items()}

    @property
    def weights(self) -> list[Tensor]:
        """The model's trained parameters."""
        return list(self._weights.values())

    @torch.no_grad()
    def update(self, update: int) -> None:
        """Takes in the weights after update `update` (from 0)."""
        weight = 1 - decay_at(update, self.decay)
        torch._foreach_lerp_(list(self._averages.values()), self.weights, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averages inside this block and its own weights again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """The model's complete state with the averages in the place of its trained weights."""
        return {**self.model.state_dict(), **self._averages}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the averages out of what `tensors` returned."""
        for name, average in self._averages.items():
            average.copy_(tensors[name])

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            weight.data, self._averages[name] = self._averages[name], weight.data
