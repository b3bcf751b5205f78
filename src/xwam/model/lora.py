"""Low-rank adapters (LoRA, arXiv 2106.09685): a frozen network, and small matrices beside its linear layers.

    y = W x + b + alpha / rank * up (down x)

`up` begins at 0, so that a network with fresh adapters answers as it did without, bit for bit.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from xwam.core.config import Frozen


class LoraConfig(Frozen):
    """Which linear layers of the blocks have adapters, by the end of their names, and of which rank.

    Weights whose names begin with one of `full`, as `transformer.head` does, are trained as a whole.
    """

    rank: int = Field(16, gt=0)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ("query", "key", "value", "out", "up", "down")
    full: tuple[str, ...] = (
        *("transformer.view_embedding", "transformer.head", "transformer.depth_head"),
        *(f"transformer.{stream}_{coder}" for stream in ("action", "proprio") for coder in ("encoder", "decoder")),
    )


class LoraLinear(nn.Linear):
    """A frozen linear layer with an adapter; weight and bias keep their names, their type and their memory."""

    def __init__(self, linear: nn.Linear, config: LoraConfig):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias, self.scale = linear.weight, linear.bias, config.alpha / config.rank
        device = linear.weight.device
        self.lora_down = nn.Parameter(torch.empty(config.rank, linear.in_features, device=device))
        self.lora_up = nn.Parameter(torch.zeros(linear.out_features, config.rank, device=device))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))  # as the authors' own code has it

    def forward(self, x: Float[Tensor, "*n Di"]) -> Float[Tensor, "*n Do"]:
        down, up = self.lora_down, self.lora_up
        kind = x.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        y = F.linear(x, self.weight.to(low), self.bias.to(low))
        return y + self.scale * F.linear(F.linear(x, down.to(low)), up.to(low))

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that gives the same but for rounding."""
        linear = nn.Linear(self.in_features, self.out_features, device="meta")
        change = self.scale * (self.lora_up.float() @ self.lora_down.float())
        linear.weight = nn.Parameter((self.weight.float() + change).to(self.weight.dtype), requires_grad=False)
        linear.bias = self.bias
        return linear


def add_lora(model: nn.Module, config: LoraConfig, base: torch.dtype | None = None) -> None:
    """Freezes `model` but for fresh adapters in its blocks and what `config.full` names, in float32.

    What is frozen of the transformer is kept as type `base`, if given: bfloat16, for use under autocast alone, takes
    two bytes a weight. ValueError at a target that no layer is called.
    """
    model.requires_grad_(False)
    for name, linear in list(model.named_modules()):
        if type(linear) is nn.Linear and _in_blocks(name) and name.rpartition(".")[2] in config.targets:
            _replace(model, name, LoraLinear(linear, config))
    adapted = {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, LoraLinear)}
    if unknown := sorted(set(config.targets) - adapted):
        raise ValueError(f"no linear layer of a block is called {unknown[0]!r}; {sorted(adapted)} would do")
    for name, parameter in model.named_parameters():
        if name.startswith(config.full):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        elif base is not None and name.startswith("transformer.") and not parameter.requires_grad:
            parameter.data = parameter.data.to(base)


def merge_lora(model: nn.Module) -> None:
    """Adds all adapters into the weights beside them; what remains is a network as if there had been none."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLinear):
            _replace(model, name, layer.merged())


def load_lora(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts the trained weights of an adapter into `model`, which `add_lora` prepared; they must be all there."""
    own = trained_tensors(model)
    if wrong := sorted(name for name in own.keys() | tensors.keys() if _shape(own, name) != _shape(tensors, name)):
        raise ValueError(f"the adapter does not fit at {len(wrong)} weights, such as {wrong[0]!r}: export it again")
    with torch.no_grad():
        for name, x in tensors.items():
            own[name].copy_(x)


def trained_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """What training moves: the adapters, and what is trained as a whole."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _in_blocks(name: str) -> bool:
    return name.startswith("transformer.") and any(part.endswith("blocks") for part in name.split("."))


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
