"""TF32, which NVIDIA GPUs from Ampere on can take for products of fp32 numbers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Float32Matmul = Literal["default", "high", "highest"]


def set_tf32(name: Float32Matmul) -> None:
    """Use TF32 for all products (high), for none (highest), or as torch is set (default)."""
    if name != "default":
        _use(matmul=name == "high", convolution=name == "high")


@contextmanager
def tf32_kept() -> Iterator[None]:
    """Put torch's use of TF32 back after the block, so that it holds for one run alone."""
    before = _used()
    try:
        yield
    finally:
        if _used() != before:
            _use(matmul=before[0], convolution=before[1])


def _used() -> tuple[bool, bool]:
    """Return whether matrix products and convolutions use TF32."""
    # The getters of `allow_tf32` raise an error where a program has set `fp32_precision`.
    names = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return names[0] == "tf32", names[1] == "tf32"


def _use(*, matmul: bool, convolution: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of torch call these setters deprecated
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = convolution
