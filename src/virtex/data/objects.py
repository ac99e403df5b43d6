"""Objects for a detector: boxes and masks after a crop, flips, tensors and batches.

The file is decoded at full size and cropped at whole pixels before it is resized, so the boxes and
masks follow exactly from two ratios.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from virtex.data.example import Example
from virtex.data.images import OpenedImage
from virtex.data.masks import (
    Boxes,
    Mask,
    Placement,
    box_around,
    check_annotated_size,
    check_masks,
    draw_mask,
    pack_masks,
)
from virtex.data.segmentations import BadMaskError
from virtex.data.transforms import resize
from virtex.errors import DataError
from virtex.imagenet import IMAGENET_MEAN

CUT = 0.5
"""Least pixels outside the crop for a box to count as cut."""
MAX_SEED = 2**31
"""Bound of the seeds by which boxes are sampled."""
OBJECTS_MULTIPLE = 8
"""Objects of a batch are padded to a multiple of this number, so that few shapes occur."""


class Objects(NamedTuple):
    """The ground truth of an image."""

    boxes: Boxes
    labels: NDArray[np.int64]
    """Class ids from 1, (M,); 0 is the background."""
    masks: Mask | None
    """Masks (M, H, W), where requested."""


def read_objects(
    example: Example, file: OpenedImage, placement: Placement, *, with_masks: bool
) -> tuple[Tensor, Objects]:
    """Return the placed image (3, h, w) and its objects; Raises: see `find_objects`."""
    source, height, width = placement
    image = resize(file.decode(source), height=height, width=width)  # (3, h, w)
    whole = file.height, file.width
    return image, find_objects(example, placement, image_size=whole, with_masks=with_masks)


def find_objects(
    example: Example, placement: Placement, *, image_size: tuple[int, int], with_masks: bool
) -> Objects:
    """Return the objects that are visible after placement, without crowds.

    Where the crop cuts an object with a mask, its new box encloses the visible part.

    Args:
        image_size: Height and width of the whole image.

    Raises:
        BadImageError: The objects, or requested masks, are of an image of another size.
        DataError: Masks are requested, and are missing or broken.
    """
    assert example.boxes is not None, "a task that needs objects gets boxes"
    check_annotated_size(example, image_size)
    moved = _move(example.boxes, placement)
    limits = np.array([placement.width, placement.height] * 2, np.float32)
    boxes = moved.clip(0, limits)
    is_cut = np.any(np.abs(boxes - moved) > CUT, axis=1)
    labels = np.asarray(example.box_labels, np.int64) + 1
    kept = _has_area(boxes)
    if example.crowd:
        kept &= ~np.asarray(example.crowd)
    if not with_masks:
        return Objects(boxes[kept], labels[kept], None)
    check_masks(example, image_size)
    masks = np.zeros((len(boxes), placement.height, placement.width), np.bool_)
    for index in np.flatnonzero(kept).tolist():
        try:
            masks[index] = draw_mask(example.masks[index], placement)
        except BadMaskError as error:
            raise DataError(
                f"{example.location}: object {index} has {error}. Correct the annotations."
            ) from error
        if is_cut[index]:
            boxes[index] = box_around(masks[index])
    kept &= masks.any((1, 2)) & _has_area(boxes)
    return Objects(boxes[kept], labels[kept], masks[kept])


def flip_objects(objects: Objects, width: int) -> Objects:
    """Return the objects of the flipped image, which is `width` pixels wide."""
    boxes, labels, masks = objects
    x1, y1, x2, y2 = boxes.T
    flipped = np.stack([width - x2, y1, width - x1, y2], axis=1)
    return Objects(flipped, labels, None if masks is None else masks[:, :, ::-1])


def encode_objects(
    image: Tensor, objects: Objects, *, image_size: tuple[int, int], rng: np.random.Generator
) -> dict[str, Tensor]:
    """Return an image and its M objects as tensors for `ObjectCollate`.

    Args:
        image_size: Height and width of the image in its file.
        rng: Generator of the seed by which a detector samples boxes in the image.

    Returns:
        image (3, h, w) uint8; sizes (2,), which are h and w; image_sizes (2,); sampling_seed ();
        boxes (M, 4); box_labels (M,); and masks (M, h, ceil(w / 8)) uint8, if present.
    """
    encoded = {
        "image": image,
        "sizes": torch.tensor(image.shape[1:]),
        "image_sizes": torch.tensor(image_size),
        "sampling_seed": torch.tensor(rng.integers(MAX_SEED)),
        "boxes": torch.from_numpy(objects.boxes),
        "box_labels": torch.from_numpy(objects.labels),
    }
    if objects.masks is not None:
        encoded["masks"] = torch.from_numpy(pack_masks(objects.masks))
    return encoded


@dataclass(frozen=True)
class ObjectCollate:
    """A function from encoded images to a batch, padded with ImageNet's mean color."""

    size: int | None = None
    """Side of the padded square image; by default the batch's largest height and width, rounded up
    to a multiple of `multiple`."""
    multiple: int = 1

    def __call__(self, encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Stack B encoded images, and pad their objects with zeros to an equal number M.

        Returns:
            image (B, 3, H, W) uint8; sizes and image_sizes (B, 2); sampling_seed (B,); boxes
            (B, M, 4); box_labels (B, M), 0 for padding; and masks (B, M, P) uint8 for
            `unpack_masks`, if present. M is a multiple of 8 above 0.
        """
        height, width = self._padded_size(encoded)
        most = max(1, *(len(item["boxes"]) for item in encoded))
        most = -(-most // OBJECTS_MULTIPLE) * OBJECTS_MULTIPLE
        batch = {
            "image": torch.stack([pad_image(item["image"], height, width) for item in encoded])
        }
        for name in ("sizes", "image_sizes", "sampling_seed"):
            batch[name] = torch.stack([item[name] for item in encoded])
        for name in ("boxes", "box_labels"):
            batch[name] = torch.stack([_pad(item[name], most) for item in encoded])
        if "masks" in encoded[0]:
            shape = most, height, -(-width // 8)
            batch["masks"] = torch.stack([_pad(item["masks"], *shape) for item in encoded])
            batch["masks"] = batch["masks"].flatten(2)  # (B, M, P)
        return batch

    def _padded_size(self, encoded: Sequence[dict[str, Tensor]]) -> tuple[int, int]:
        if self.size is not None:
            return self.size, self.size
        lengths = (max(item["image"].shape[side] for item in encoded) for side in (1, 2))
        height, width = (-(-length // self.multiple) * self.multiple for length in lengths)
        return height, width


def pad_image(image: Tensor, height: int, width: int) -> Tensor:
    """Pad an image (3, h, w) to (3, height, width) with the mean color, at the right and below."""
    mean = torch.tensor([round(255 * value) for value in IMAGENET_MEAN], dtype=torch.uint8)
    padded = mean[:, None, None].repeat(1, height, width)
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded


def _pad(values: Tensor, *shape: int) -> Tensor:
    """Append zeros to the first dimensions, up to `shape`."""
    missing = [length - own for length, own in zip(shape, values.shape, strict=False)]
    unpadded = (0, 0) * (values.dim() - len(shape))
    return functional.pad(
        values, (*unpadded, *(margin for length in reversed(missing) for margin in (0, length)))
    )


def _move(boxes: Boxes, placement: Placement) -> Boxes:
    """Return boxes of the image in pixels of the input, possibly outside the placed rectangle."""
    (top, left, crop_height, crop_width), height, width = placement
    corner = np.array([left, top] * 2, np.float32)
    scale = np.array([width / crop_width, height / crop_height] * 2, np.float32)
    return (boxes - corner) * scale


def _has_area(boxes: Boxes) -> NDArray[np.bool_]:
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
