"""AdamW (arXiv 1711.05101) in three ways, which differ in what its two moments take and where they are.

adamw          float32 beside the weights: 8 bytes a trained parameter
adamw8bit      an entry is one of 256 values times the largest of its block (arXiv 2110.02861): 2.03 bytes
adamw_offload  float32 in the host's memory: none on the GPU, which they pass through tensor by tensor

All compute in float32, in place, each rank on its own part of the weights. A state is tensors alone, sharded as its
parameter is, so any number of ranks goes on with what any other number has saved.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.distributed import tensor as dtensor
from torch.distributed.tensor import DTensor

from xwam.train.parallel import local

MOMENTS = ("exp_avg", "exp_avg_sq")  # PyTorch's names: means of gradients, with their sign, and of their squares
BLOCK = 256  # entries of a row that share a scale
DECADES = 7  # orders of magnitude that eight bits reach below the largest entry of a block


class AdamW(torch.optim.AdamW):
    """PyTorch's, which also tells how a state begins."""

    @staticmethod
    def new_state(parameter: Tensor) -> dict[str, Tensor]:
        """The state of a parameter before its first update."""
        moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in MOMENTS}
        return {"step": torch.zeros((), device=parameter.device), **moments}


class OffloadedAdamW(AdamW):
    """Its moments are in the host's memory, page-locked beside a GPU so that they are copied at the bus's full rate."""

    @staticmethod
    def new_state(parameter: Tensor) -> dict[str, Tensor]:
        return {"step": torch.zeros(()), **{name: host_copy(torch.zeros_like(parameter)) for name in MOMENTS}}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what a checkpoint copies next must have arrived

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        if not self.state[parameter]:
            self.state[parameter] = self.new_state(parameter)
        state, weight = self.state[parameter], local(parameter)
        moments = self._read(state, weight)
        state["step"] += 1
        descend(weight, local(parameter.grad), *moments, state["step"].item(), group)
        self._write(state, moments)

    def _read(self, state: dict[str, Tensor], weight: Tensor) -> list[Tensor]:
        """This rank's part of both moments, in float32 beside its weights."""
        return [local(state[name]).to(weight.device, non_blocking=True) for name in MOMENTS]

    def _write(self, state: dict[str, Tensor], moments: list[Tensor]) -> None:
        for name, moment in zip(MOMENTS, moments, strict=True):
            local(state[name]).copy_(moment, non_blocking=True)


class AdamW8bit(OffloadedAdamW):
    """Moments of matrices in eight bits beside the weights; those of all else, which is little, in float32.

    Blocks lie within rows, and ranks share whole rows, so a state means the same however it is sharded. Rows shorter
    than a block stay in float32, too.
    """

    @staticmethod
    def new_state(parameter: Tensor) -> dict[str, Tensor]:
        if parameter.ndim != 2 or parameter.shape[1] < BLOCK:
            return AdamW.new_state(parameter) | {"step": torch.zeros(())}  # on a GPU each step would wait to read it
        state = {"step": torch.zeros(())}
        for name in MOMENTS:
            state[f"{name}_codes"] = torch.zeros_like(parameter, dtype=torch.uint8, requires_grad=False)
            state[f"{name}_scales"] = _rows_like(parameter, -(-parameter.shape[1] // BLOCK))
        return state

    def _read(self, state: dict[str, Tensor], weight: Tensor) -> list[Tensor]:
        if MOMENTS[0] in state:
            return super()._read(state, weight)
        both = [[local(state[f"{name}_{part}"]) for part in ("codes", "scales")] for name in MOMENTS]
        return [decode(*parts, signed=name == MOMENTS[0]) for name, parts in zip(MOMENTS, both, strict=True)]

    def _write(self, state: dict[str, Tensor], moments: list[Tensor]) -> None:
        if MOMENTS[0] in state:
            return super()._write(state, moments)
        for name, moment in zip(MOMENTS, moments, strict=True):
            codes, scales = encode(moment, signed=name == MOMENTS[0])
            local(state[f"{name}_codes"]).copy_(codes)
            local(state[f"{name}_scales"]).copy_(scales)


OPTIMIZERS = {"adamw": AdamW, "adamw8bit": AdamW8bit, "adamw_offload": OffloadedAdamW}


def descend(
    weight: Float[Tensor, "*n"],
    gradient: Float[Tensor, "*n"],
    mean: Float[Tensor, "*n"],
    square: Float[Tensor, "*n"],
    step: float,
    group: dict[str, Any],
) -> None:
    """Update number `step` (from 1) of a weight and both its moments, in place."""
    first, second = group["betas"]
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    scale = (square / (1 - second**step)).sqrt_().add_(group["eps"])
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.addcdiv_(mean, scale, value=-group["lr"] / (1 - first**step))


def encode(x: Float[Tensor, "n m"], signed: bool) -> tuple[UInt8[Tensor, "n m"], Float[Tensor, "n b"]]:
    """Eight bits an entry, and the largest magnitude of each block of a row.

    What is unsigned and not 0 never becomes 0: a mean of squares too small for its block would else divide by eps.
    """
    width = x.shape[1]
    blocks = torch.nn.functional.pad(x, (0, -width % BLOCK)).unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(-1)
    shares = blocks / scales.clamp(min=torch.finfo(x.dtype).tiny).unsqueeze(-1)
    values = code_values(signed, x.device)
    codes = torch.bucketize(shares, (values[1:] + values[:-1]) / 2, out_int32=True)
    if not signed:
        codes = torch.where(blocks > 0, codes.clamp_(min=1), 0)
    return codes.to(torch.uint8).flatten(1)[:, :width], scales


def decode(codes: UInt8[Tensor, "n m"], scales: Float[Tensor, "n b"], signed: bool) -> Float[Tensor, "n m"]:
    """Inverse of `encode`, but for rounding."""
    return code_values(signed, codes.device)[codes.int()] * scales.repeat_interleave(BLOCK, 1)[:, : codes.shape[1]]


@lru_cache
def code_values(signed: bool, device: torch.device) -> Float[Tensor, "256"]:
    """The values of the codes, ascending to 1: dense at large magnitudes, and twice as dense where all are positive.

    The dynamic map of arXiv 2110.02861: of each decade the middles of equal intervals, twice as many as of the one
    below, and 0 and 1.
    """
    values = [torch.tensor([0.0, 1.0])]
    for decade in range(DECADES):
        edges = torch.linspace(0.1, 1, (1 if signed else 2) * 2**decade + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade + 1 - DECADES)
        values += [middles, -middles] if signed else [middles]
    return torch.cat(values).sort().values.to(device)


def host_copy(x: Tensor) -> Tensor:
    """A copy in the host's memory, page-locked if `x` is on a GPU and not sharded."""
    if isinstance(x, DTensor) or x.device.type != "cuda":
        return x.detach().to("cpu", copy=True)
    return torch.empty_like(x, device="cpu", pin_memory=True).copy_(x.detach())


def _rows_like(matrix: Tensor, width: int) -> Tensor:
    """Zeros of another width, whose rows are sharded as the matrix's are."""
    size = (matrix.shape[0], width)
    if isinstance(matrix, DTensor):
        return dtensor.zeros(size, device_mesh=matrix.device_mesh, placements=matrix.placements)
    return torch.zeros(size, device=matrix.device)
