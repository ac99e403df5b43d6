"""Masks of objects: drawn at the size that a network sees, and packed for the way to it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import Box
from virtex.data.source_options import WITH_MASKS
from virtex.errors import DataError

Boxes = NDArray[np.float32]
"""(M, 4) corners x1 y1 x2 y2."""
Mask = NDArray[np.bool_]
"""(H, W)"""

BITS = np.arange(7, -1, -1)
"""Places of a byte's bits as numpy packs them."""
FEWEST_COORDINATES = 6
"""A polygon of fewer has no area."""


class Placement(NamedTuple):
    """A rectangle of the image, resized, at the upper left of the network's input."""

    source: Box
    height: int
    """Of the resized rectangle."""
    width: int


def draw_mask(segmentation: Any, placement: Placement) -> Mask:
    """A COCO segmentation as pixels (h, w) of the resized rectangle.

    Args:
        segmentation: Polygons in pixels of the image, or run lengths of the image's size.
    """
    (top, left, crop_height, crop_width), height, width = placement
    if isinstance(segmentation, dict):
        mask = _decode(compressed_mask(segmentation, *segmentation["size"]))
        rows = top + _sources(height, crop_height)
        columns = left + _sources(width, crop_width)
        return mask[rows[:, None], columns]
    scale = np.array([width / crop_width, height / crop_height])
    polygons = [
        ((np.reshape(polygon, (-1, 2)) - (left, top)) * scale).ravel().tolist()
        for polygon in segmentation
    ]
    return _decode(compressed_mask(polygons, height, width))


def compressed_mask(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A COCO segmentation as compressed run lengths.

    Polygons too short to have an area are left out; where no other is left, the mask is empty.

    Args:
        segmentation: Polygons in pixels of the image, or run lengths, compressed or not.
        height: Of the image; run lengths have their own.
        width: Likewise.
    """
    if isinstance(segmentation, dict):
        if not isinstance(segmentation["counts"], list):
            return segmentation
        return run_lengths.frPyObjects(segmentation, *segmentation["size"])
    polygons = [one for one in segmentation if len(one) >= FEWEST_COORDINATES]
    if not polygons:  # merged, they would be a mask of no size
        return run_lengths.encode(np.zeros((height, width), np.uint8, order="F"))
    return run_lengths.merge(run_lengths.frPyObjects(polygons, height, width))


def box_around(mask: Mask) -> Boxes:
    """The smallest box (4,) around a mask; zeros around an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def pack_masks(masks: Mask) -> NDArray[np.uint8]:
    """Masks (M, H, W) at eight pixels a byte, each row of whole bytes: (M, H, ceil(W / 8)).

    So packed, they can still be padded at the right and below.
    """
    return np.packbits(masks, axis=2)


def unpack_masks(packed: Tensor, height: int, width: int) -> Tensor:
    """Masks (M, H, W) uint8, 0 or 1, on the same device.

    Args:
        packed: (M, H * ceil(W / 8)), the rows that `pack_masks` gave, one after the other.
    """
    places = torch.as_tensor(BITS, dtype=torch.uint8, device=packed.device)
    bits = (packed[..., None] >> places) & 1  # (M, P, 8)
    return bits.view(len(packed), height, -(-width // 8) * 8)[:, :, :width]


def check_masks(example: Example, image_size: tuple[int, int]) -> None:
    """See that each box has a mask, and run lengths the size (height, width) of the image.

    Raises:
        DataError: It is not so.
    """
    if len(example.masks) != len(example.box_labels):
        raise DataError(
            f"{example.location} has {len(example.box_labels)} boxes and {len(example.masks)} "
            f"masks. Use data with masks (--data.source {', '.join(sorted(WITH_MASKS))}), or learn "
            "boxes alone (masks: false)."
        )
    for mask in example.masks:
        if isinstance(mask, dict) and tuple(mask["size"]) != image_size:
            height, width = mask["size"]
            raise DataError(
                f"{example.location} is {image_size[1]} x {image_size[0]} pixels, and a mask of it "
                f"{width} x {height}. Mend the annotations, or use the images they were made for."
            )


def _sources(length: int, source_length: int) -> NDArray[np.int64]:
    """Which of the source pixels lies under the centre of each resized one."""
    return ((np.arange(length) + 0.5) * source_length / length).astype(np.int64)


def _decode(compressed: dict[str, Any]) -> Mask:
    """Compressed run lengths to pixels."""
    return run_lengths.decode(compressed).astype(np.bool_)
