"""The precision of a run or a model: what the hardware is fast at, and what `auto` stands for."""

import logging
import os
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from virtex import distributed
from virtex.engine.run import AnyPrecision, Precision

log = logging.getLogger("virtex")


class _Instructions(NamedTuple):
    """What a CPU needs to be fast at a precision."""

    words: str
    keys: tuple[str, ...]
    """Keys of torch.cpu.get_capabilities, of which one is enough."""
    sets: tuple[str, ...]
    """Parts of the names of those of oneDNN's instruction sets that hold them."""
    cost: str
    """Time of a step without them, relative to fp32."""


INSTRUCTIONS = {
    "bf16": _Instructions(
        "AMX or AVX-512 BF16",
        ("amx_bf16", "avx512_bf16"),
        ("BF16", "FP16", "AMX", "AVX10"),
        "1.6 to 8 times",
    ),
    "fp16": _Instructions(
        "AMX or AVX-512 FP16", ("amx_fp16", "avx512_fp16"), ("FP16", "AVX10"), "10 to 20 times"
    ),
}
"""Not ARM's bf16, whose speed in training has not been measured."""
FASTER = "fp32 is faster here, and `auto` chooses it"


def choose_precision(
    precision: AnyPrecision,
    device: torch.device,
    *,
    network: nn.Module | None = None,
    option: str = "precision",
    so: str = FASTER,
) -> Precision:
    """Return the named precision; `auto`: bf16 if the device is fast at it, else fp32.

    Warns, once, if the device is slow at the named one.

    Args:
        network: What is trained, if it is: a CPU is slow at some in bf16.
        option: Name of the option, for the warning.
        so: What follows for the user, for the warning.
    """
    if precision == "auto":
        is_slow = network is not None and device.type == "cpu" and _strides_channels(network)
        return "bf16" if is_fast("bf16", device) and not is_slow else "fp32"
    if not is_fast(precision, device):
        if device.type == "cpu":
            needed = INSTRUCTIONS[precision]
            _warn(
                f"{option} {precision}: this CPU lacks {needed.words} (or is kept from using it), "
                f"and takes {needed.cost} as long as in fp32; {so}"
            )
        elif device.type == "cuda":
            _warn(f"{option} {precision}: this GPU emulates it, which is slow; {so}")
    return precision


def _strides_channels(network: nn.Module) -> bool:
    """Return whether depthwise convolutions have a stride, whose bf16 gradients a CPU is slow at.

    Whole steps of MobileNet and EfficientNet take up to twice as long as in fp32; ConvNeXt, whose
    depthwise convolutions have no stride, gains from bf16 (docs/benchmarks.md).
    """
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return any(1 < one.groups == one.in_channels and max(one.stride) > 1 for one in convolutions)


def agreed_precision(
    precision: AnyPrecision,
    device: torch.device,
    *,
    network: nn.Module | None = None,
    option: str,
    so: str = FASTER,
) -> Precision:
    """Return what all processes choose: fp32 where `auto` stands for it on one of them."""
    own = choose_precision(precision, device, network=network, option=option, so=so)
    return own if len(set(distributed.gather_objects(own))) == 1 else "fp32"


def is_fast(precision: Precision, device: torch.device) -> bool:
    """Return whether a device has instructions for a precision that training gains from."""
    if precision == "fp32":
        return True
    if device.type == "cuda":
        is_new = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
        return precision == "fp16" or is_new
    return device.type == "cpu" and _is_fast_on_cpu(INSTRUCTIONS[precision])


def _is_fast_on_cpu(needed: _Instructions) -> bool:
    """Return whether the CPU has instructions, and torch and oneDNN are not kept from them.

    The environment variables ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA keep them from newer ones.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    capabilities = torch.cpu.get_capabilities()
    return (
        torch.backends.mkldnn.is_available()
        and any(capabilities.get(key) for key in needed.keys)
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and (limit == "DEFAULT" or any(name in limit for name in needed.sets))
    )


@cache
def _warn(text: str) -> None:
    if distributed.is_main():
        log.warning("%s", text)
