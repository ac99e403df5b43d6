"""Which arithmetic suits a device."""

from typing import Literal

import torch

from virtex.engine.run import Precision


def choose_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """The precision that is named; `auto`: bf16 where the device computes with it, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        gains = any(able.get(name) for name in ("amx_bf16", "avx512_bf16"))
    return "bf16" if gains else "fp32"
