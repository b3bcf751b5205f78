"""A moving average of the trained weights; validation and export use it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xwam.train.optimizers import host_copy
from xwam.train.parallel import local


def decay_at(update: int, decay: float) -> float:
    """Decay of update `update` (from 0); small at first, so that a short run soon forgets its initial weights."""
    return min(decay, (1 + update) / (10 + update))


class Ema:
    """average <- decay * average + (1 - decay) * weight, for each trained parameter of `model`, sharded as it is.

    Without decay the weights are their own averages, and nothing is kept. On the host, the averages take no memory of
    the GPU, and each update copies the weights to them.
    """

    def __init__(self, model: nn.Module, decay: float, on_host: bool = False):
        self.model = model
        self.decay = decay
        self._on_host = on_host
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        kept = self._weights if decay else {}
        self._averages = {name: host_copy(p) if on_host else p.detach().clone() for name, p in kept.items()}

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
        pairs = list(self._pairs())
        if pairs and not self._on_host:
            averages, weights = zip(*pairs, strict=True)
            torch._foreach_lerp_(averages, weights, weight)
        else:
            for average, x in pairs:  # one by one: the host need not hold all weights beside all averages
                average.lerp_(x.to("cpu"), weight)

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
        for name, average in self._averages.items():
            yield local(average), local(self._weights[name])
