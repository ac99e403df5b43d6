"""Masks of objects, drawn at the network's resolution and packed into bits."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import BadImageError, Box
from virtex.data.segmentations import (
    FEWEST_COORDINATES,
    BadMaskError,
    polygons_in,
    run_lengths_in,
    size_of,
)
from virtex.data.source_options import WITH_MASKS
from virtex.errors import DataError

Boxes = NDArray[np.float32]
"""Corners x1 y1 x2 y2, (M, 4)."""
Mask = NDArray[np.bool_]


class Placement(NamedTuple):
    """A rectangle of the image, resized to height and width, at the upper left of the input."""

    source: Box
    height: int
    width: int


def draw_mask(segmentation: Any, placement: Placement) -> Mask:
    """Return an object's mask (h, w) in the placed image, as cropped and resized.

    Raises:
        BadMaskError: It is malformed, or would take far more memory than the image.
    """
    (top, left, crop_height, crop_width), height, width = placement
    if isinstance(segmentation, dict):
        size = size_of(segmentation)
        if size[0] < top + crop_height or size[1] < left + crop_width:
            raise BadMaskError(f"a mask of {size[1]} x {size[0]} pixels, smaller than its image")
        mask = run_lengths.decode(compressed_mask(segmentation, *size))
        rows = top + _sources(height, crop_height)
        columns = left + _sources(width, crop_width)
        return mask[rows[:, None], columns].astype(np.bool_)
    scale = np.array([width / crop_width, height / crop_height])
    polygons = [
        ((polygon.reshape(-1, 2) - (left, top)) * scale).ravel().tolist()
        for polygon in polygons_in(segmentation)
    ]
    return run_lengths.decode(compressed_mask(polygons, height, width)).astype(np.bool_)


def compressed_mask(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return the COCO segmentation of an image of `height` and `width` as compressed run lengths.

    Polygons with too few points for an area are left out; the mask may then be empty.

    Raises:
        BadMaskError: It is malformed, of another size, or would take far too much memory.
    """
    if isinstance(segmentation, dict):
        runs = run_lengths_in(segmentation)
        if (size := size_of(segmentation)) != (height, width):
            raise BadMaskError(
                f"a mask of {size[1]} x {size[0]} pixels in an image of {width} x {height}"
            )
        if not isinstance(segmentation["counts"], list):
            return {"size": [*size], "counts": segmentation["counts"]}
        return run_lengths.frPyObjects({"size": [*size], "counts": runs.tolist()}, *size)
    polygons = [one.tolist() for one in polygons_in(segmentation) if len(one) >= FEWEST_COORDINATES]
    if not polygons:  # merging none would give a mask of size 0
        return run_lengths.encode(np.zeros((height, width), np.uint8, order="F"))
    return run_lengths.merge(run_lengths.frPyObjects(polygons, height, width))


def box_around(mask: Mask) -> Boxes:
    """Return the smallest box (4,) around a mask; zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def pack_masks(masks: Mask) -> NDArray[np.uint8]:
    """Pack masks (M, H, W) into (M, H, ceil(W / 8)) bytes, which can still be padded."""
    return np.packbits(masks, axis=2)


def unpack_masks(packed: Tensor, height: int, width: int) -> Tensor:
    """Return masks (M, H, W) uint8, 0 or 1, from packed rows (M, H * ceil(W / 8))."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = (packed[..., None] >> shifts) & 1  # (M, P, 8)
    return bits.view(len(packed), height, -(-width // 8) * 8)[:, :, :width]


def check_annotated_size(example: Example, image_size: tuple[int, int]) -> None:
    """Raise a BadImageError for objects that were annotated in an image of another size (H, W)."""
    size = example.annotated_size
    if size is None or size == image_size or not example.box_labels:
        return
    remedy = "use the original images"
    if size == image_size[::-1]:
        remedy = "remove the image's EXIF orientation if it has one"
    raise BadImageError(
        example.location,
        f"{image_size[1]} x {image_size[0]} pixels, and its annotations say {size[1]:g} x "
        f"{size[0]:g}: its boxes may lie elsewhere; correct the annotations, or {remedy}",
    )


def check_masks(example: Example, image_size: tuple[int, int]) -> None:
    """Check that each box has a mask, and that run lengths have the image's (H, W).

    Raises:
        BadImageError: Run lengths of another size.
        DataError: Masks that are missing or broken.
    """
    if len(example.masks) != len(example.box_labels):
        raise DataError(
            f"{example.location} has {len(example.box_labels)} boxes and {len(example.masks)} "
            f"masks. Use data with masks (--data.source {', '.join(sorted(WITH_MASKS))}), or learn "
            "boxes alone (masks: false)."
        )
    try:
        sizes = [size_of(mask) for mask in example.masks if isinstance(mask, dict)]
    except BadMaskError as error:
        raise DataError(f"{example.location} has {error}. Correct the annotations.") from error
    for height, width in sizes:
        if (height, width) != image_size:
            raise BadImageError(
                example.location,
                f"{image_size[1]} x {image_size[0]} pixels, and a mask of it {width} x {height}; "
                "correct the annotations, or use the original images",
            )


def _sources(length: int, source_length: int) -> NDArray[np.int64]:
    """Return the index of the source pixel under the center of each resized pixel."""
    return ((np.arange(length) + 0.5) * source_length / length).astype(np.int64)
