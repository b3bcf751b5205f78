"""In which numbers products are computed."""

from collections.abc import Callable
from functools import wraps
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]


def precision_of(name: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """For "auto" bf16 where the device multiplies it itself, and fp32 elsewhere.

    A processor without such instructions takes several times as long over bf16 as over fp32.
    """
    if name != "auto":
        return name
    can = torch.cpu.get_capabilities()
    slow = device.type == "cpu" and not any(can.get(unit) for unit in ("amx_bf16", "avx512_bf16"))
    return "fp32" if slow else "bf16"


def as_its_weights(method: Callable) -> Callable:
    """A world action model's method with products in bfloat16 if its weights are; what is denoised stays in float32."""

    @wraps(method)
    def computed(self, *args, **kwargs):
        half = self.transformer.head.linear.weight.dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return method(self, *args, **kwargs)

    return computed
