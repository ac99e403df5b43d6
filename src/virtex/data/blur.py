"""Gaussian blur, which contrastive recipes add to the colour jitter.

Integer arithmetic on planes of 16 bits, as in color_jitter.py: several times faster than a float
convolution or Pillow's, and within two levels of `torchvision.transforms.v2.functional.gaussian_blur`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from virtex.data.color_jitter import Levels

REACH = 3
"""A blur's kernel ends after this many sigmas."""


def blur(pixels: NDArray[np.uint8], *, sigma: float) -> NDArray[np.uint8]:
    """(3, H, W) RGB under a Gaussian of `sigma` pixels; the edge goes on beyond the picture."""
    weights = _half_kernel(sigma)
    levels = pixels.astype(np.uint16)
    for axis in (1, 2):
        levels = _blur_along(levels, weights, axis=axis)
    return levels.astype(np.uint8, order="C")


def _half_kernel(sigma: float) -> list[int]:
    """Weights at distances 0, 1, 2... in 1/256; with both sides they sum to 256."""
    distances = range(1, math.ceil(REACH * sigma) + 1)
    tail = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in distances]
    total = 1 + 2 * sum(tail)
    weights = [round(256 * value / total) for value in tail]
    return [256 - 2 * sum(weights), *(weight for weight in weights if weight)]


def _blur_along(levels: Levels, weights: list[int], *, axis: int) -> Levels:
    """No sum leaves 16 bits: 255 * 256 + 128 is below 65536."""
    size, reach = levels.shape[axis], len(weights) - 1
    margins = [(reach, reach) if side == axis else (0, 0) for side in range(3)]
    padded = np.moveaxis(np.pad(levels, margins, mode="edge"), axis, 0)
    blurred = padded[reach : reach + size] * np.uint16(weights[0])
    for distance, weight in enumerate(weights[1:], start=1):
        before = padded[reach - distance : reach - distance + size]
        after = padded[reach + distance : reach + distance + size]
        blurred += (before + after) * np.uint16(weight)
    blurred += np.uint16(128)
    blurred >>= 8
    return np.moveaxis(blurred, 0, axis)
