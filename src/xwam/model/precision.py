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
    return "bf16" if device.type != "cpu" or _cpu_multiplies_bf16() else "fp32"


def float32_products(device: torch.device) -> Literal["medium", "highest"]:
    """How precise products of float32 are in training, for `torch.set_float32_matmul_precision`.

    "medium" is TF32 on a GPU, at a relative error near 1e-3; on a CPU it is twice the speed at one near 1e-6. But a CPU
    that multiplies bfloat16 would take that instead, at 1e-3, also where float32 was asked for.
    """
    return "highest" if device.type == "cpu" and _cpu_multiplies_bf16() else "medium"


def _cpu_multiplies_bf16() -> bool:
    can = torch.cpu.get_capabilities()
    return any(can.get(unit) for unit in ("amx_bf16", "avx512_bf16"))


def as_its_weights(method: Callable) -> Callable:
    """A world action model's method with products in bfloat16 if its weights are; what is denoised stays in float32."""

    @wraps(method)
    def computed(self, *args, **kwargs):
        half = self.transformer.head.linear.weight.dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            return method(self, *args, **kwargs)

    return computed
