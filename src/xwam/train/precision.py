"""In which numbers products are computed."""

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
