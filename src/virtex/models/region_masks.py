"""Masks of regions: what the mask head learns, and its masks placed in an image.

He et al., "Mask R-CNN" (ICCV 2017), section 3. As in Detectron2, a target is a yes or no for each
cell, and a mask is read at the centers of the image's pixels. torchvision learns fractions, shifted
by half a pixel, and places masks in whole pixels.

Departure: targets are cut from masks that are drawn at the image's size, which Detectron2 does for
MASK_FORMAT "bitmask"; its default draws each polygon in the region's own grid.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample
from torchvision.ops import roi_align

THRESHOLD = 0.5
"""Least part of a cell that is covered, and least probability, for a mask to count as there."""


def mask_loss(logits: Tensor, targets: Tensor, *, labels: Tensor, is_learned: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over the cells of a mask, summed over regions.

    Args:
        logits: (R, K, cells, cells)
        targets: (R, cells, cells) bool, from `mask_targets`.
        labels: (R,) classes of the regions' objects.
        is_learned: (R,) bool; other regions do not count.
    """
    rows = torch.arange(len(labels), device=labels.device)
    entropies = binary_cross_entropy_with_logits(
        logits[rows, labels], targets.to(logits.dtype), reduction="none"
    )
    return (entropies.mean((1, 2)) * is_learned).sum()


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, *, num_cells: int) -> Tensor:
    """Return for each box which of its cells the object covers by half or more.

    Args:
        masks: (M, H, W) of the objects in an image.
        boxes: (N, 4)
        objects: (N,) index of the mask for each box.

    Returns:
        (N, num_cells, num_cells) bool.
    """
    regions = torch.cat([objects[:, None].to(boxes.dtype), boxes], dim=1)  # (N, 5)
    covered = roi_align(masks[:, None].to(boxes.dtype), regions, num_cells, 1.0, 0, aligned=True)
    return covered[:, 0] >= THRESHOLD


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels of an image the masks in boxes cover.

    Args:
        masks: Probabilities (D, cells, cells).
        boxes: (D, 4) corners in pixels.
        size: Height and width of the image.

    Returns:
        (D, H, W) bool.
    """
    pasted = masks.new_zeros((len(masks), *size), dtype=torch.bool)
    for mask, box, into in zip(masks, boxes.tolist(), pasted, strict=True):
        x1, y1, x2, y2 = box
        columns, rows = _pixels(x1, x2, size[1]), _pixels(y1, y2, size[0])
        grid_x, grid_y = _positions(columns, x1, x2, mask), _positions(rows, y1, y2, mask)
        grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=2)  # (h, w, 2)
        read = grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]  # (h, w)
        into[rows.start : rows.stop, columns.start : columns.stop] = read >= THRESHOLD
    return pasted


def _pixels(start: float, end: float, length: int) -> range:
    """Return the pixels that a side touches, in an image of a length."""
    first = min(max(math.floor(start), 0), length)
    return range(first, max(first, min(math.ceil(end), length)))


def _positions(pixels: range, start: float, end: float, mask: Tensor) -> Tensor:
    """Return where in a box the centers of pixels lie, from -1 at its start to 1 at its end."""
    centers = torch.arange(pixels.start, pixels.stop, device=mask.device, dtype=mask.dtype) + 0.5
    return (centers - start) / (end - start) * 2 - 1
