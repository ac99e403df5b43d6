"""Boxes as corners x1 y1 x2 y2 in pixels: their IoU, and offsets from one to another.

Ren et al., "Faster R-CNN" (NeurIPS 2015), equation 2. The formulas are torchvision's, whose
functions copy constants to the device and wait for it.
"""

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest logarithm of the ratio of sides that an offset may state; more would overflow."""
Weights = tuple[float, float, float, float]
"""Factors of an offset's x, y, width and height."""


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU (..., M, N) of boxes (..., M, 4) with others (..., N, 4); NaN for 0 / 0."""
    x1, y1, x2, y2 = boxes[..., None, :].unbind(-1)  # (..., M, 1) each
    left, top, right, bottom = others[..., None, :, :].unbind(-1)  # (..., 1, N) each
    width = (torch.minimum(x2, right) - torch.maximum(x1, left)).clamp(min=0)  # (..., M, N)
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top)).clamp(min=0)
    shared = width * height
    return shared / ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared)


def offsets_between(
    regions: Tensor, objects: Tensor, weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return the offsets (..., 4) from regions (..., 4) to objects (..., 4)."""
    x, y, width, height = _centers_and_sides(regions)
    own_x, own_y, own_width, own_height = _centers_and_sides(objects)
    steps = (
        weights[0] * (own_x - x) / width,
        weights[1] * (own_y - y) / height,
        weights[2] * (own_width / width).log(),
        weights[3] * (own_height / height).log(),
    )
    return torch.stack(steps, dim=-1)


def moved(regions: Tensor, offsets: Tensor) -> Tensor:
    """Return regions (..., 4) moved by offsets (..., 4) of weights 1."""
    x, y, width, height = _centers_and_sides(regions)
    right, down, wider, higher = offsets.unbind(-1)
    x, y = right * width + x, down * height + y
    half_width = 0.5 * (wider.clamp(max=MAX_LOG_SCALE).exp() * width)
    half_height = 0.5 * (higher.clamp(max=MAX_LOG_SCALE).exp() * height)
    corners = x - half_width, y - half_height, x + half_width, y + half_height
    return torch.stack(corners, dim=-1)


def clipped(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Return boxes (B, N, 4) within images whose heights and widths are `sizes` (B, 2)."""
    limits = sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)  # (B, 1, 4)
    return torch.minimum(boxes.clamp(min=0), limits)


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x and y of the centers, widths and heights (...) of boxes (..., 4)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
