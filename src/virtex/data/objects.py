"""Image, boxes and masks changed together, for tasks that find objects.

The scale jitter of Ghiasi et al., "Simple Copy-Paste" (CVPR 2021), section 3: an image that just
fits into the square input is zoomed by a random factor; what is then too large is cropped at
random, what is too small is padded at the right and below. Its shape stays.

A crop is cut from the file at whole pixels before it is resized, so boxes and masks follow from two
ratios without error; for the same reason the file is decoded at full size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from torch import Tensor
from torch.nn import functional

from virtex.data.example import Example
from virtex.data.images import Box, JpegImage, PixelImage, open_image
from virtex.data.transforms import IMAGENET_MEAN, ImageConfig, flip_and_recolor, resize
from virtex.errors import DataError

Boxes = NDArray[np.float32]
"""(M, 4) corners x1 y1 x2 y2."""
Mask = NDArray[np.bool_]
"""(H, W)"""

BITS = np.arange(7, -1, -1)
"""Places of a byte's bits as numpy packs them."""
CUT = 0.5
"""A crop that takes less of a box, in pixels, does not cut it."""
FEWEST_COORDINATES = 6
"""A polygon of fewer has no area."""


class Objects(NamedTuple):
    """What is to be found in an image."""

    boxes: Boxes
    labels: NDArray[np.int64]
    """(M,) from 1; 0 stands for no object."""
    masks: Mask | None
    """(M, H, W), where masks are asked for."""


class Placement(NamedTuple):
    """A rectangle of the image, resized, at the upper left of the network's input."""

    source: Box
    height: int
    """Of the resized rectangle."""
    width: int


@dataclass(frozen=True)
class ObjectTrainTransform:
    """Random zoom and place, flip, change of colours.

    Of the image options scale and ratio do not apply: an image keeps its shape.
    """

    config: ImageConfig
    zoom: tuple[float, float]
    """Smallest and largest factor; at 1 the longer side just fits."""
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """Tensors for `collate_objects`; see `encode_objects`.

        Raises:
            BadImageError: The image is missing, corrupt, truncated or too large.
            DataError: Masks are asked for, and the example has none or not its image's.
        """
        size, (low, high) = self.config.size, self.zoom
        share, down, right = rng.random(3).tolist()
        file = open_image(example.image, name=example.location)
        zoom = low + share * (high - low)
        placement = place(file.height, file.width, size=size, zoom=zoom, down=down, right=right)
        image, objects = _read(example, file, placement, with_masks=self.with_masks)
        image, is_mirrored = flip_and_recolor(image, self.config, rng)
        if is_mirrored:
            objects = flip_objects(objects, placement.width)
        return encode_objects(image, objects, size=size)


@dataclass(frozen=True)
class ObjectValidationTransform:
    """The whole image, as large as fits."""

    config: ImageConfig
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """As in training, without randomness."""
        del rng
        file = open_image(example.image, name=example.location)
        placement = place(file.height, file.width, size=self.config.size)
        image, objects = _read(example, file, placement, with_masks=self.with_masks)
        return encode_objects(image, objects, size=self.config.size)


def place(
    height: int, width: int, *, size: int, zoom: float = 1.0, down: float = 0.0, right: float = 0.0
) -> Placement:
    """Where an image comes to lie in a square input.

    Args:
        height: Of the image.
        width: Of the image.
        size: Side of the input.
        zoom: At 1 the longer side just fits.
        down: What is too high is cropped at this share, from 0 to below 1, of what is possible.
        right: As `down`, for what is too wide.
    """
    scale = zoom * size / max(height, width)
    crop_height, out_height = _extent(height, scale, size)
    crop_width, out_width = _extent(width, scale, size)
    top = int(down * (height - crop_height + 1))
    left = int(right * (width - crop_width + 1))
    return Placement(Box(top, left, crop_height, crop_width), out_height, out_width)


def find_objects(
    example: Example, placement: Placement, *, image_size: tuple[int, int], with_masks: bool
) -> Objects:
    """The objects that can be seen after placement; crowds are none.

    Where the crop cuts an object with a mask, its box is drawn anew around what is left.

    Args:
        image_size: Height and width of the whole image.

    Raises:
        DataError: Masks are asked for, and the example has none or not its image's.
    """
    assert example.boxes is not None, "a task that needs objects is given boxes"
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
    _check_masks(example, image_size)
    masks = np.zeros((len(boxes), placement.height, placement.width), np.bool_)
    for index in np.flatnonzero(kept).tolist():
        masks[index] = draw_mask(example.masks[index], placement)
        if is_cut[index]:
            boxes[index] = box_around(masks[index])
    kept &= masks.any((1, 2)) & _has_area(boxes)
    return Objects(boxes[kept], labels[kept], masks[kept])


def draw_mask(segmentation: Any, placement: Placement) -> Mask:
    """A COCO segmentation as pixels (h, w) of the resized rectangle.

    Args:
        segmentation: Polygons in pixels of the image, or run lengths of the image's size.
    """
    (top, left, crop_height, crop_width), height, width = placement
    if isinstance(segmentation, dict):
        mask = _decode(segmentation)
        rows = top + _sources(height, crop_height)
        columns = left + _sources(width, crop_width)
        return mask[rows[:, None], columns]
    scale = np.array([width / crop_width, height / crop_height])
    polygons = [
        ((np.reshape(polygon, (-1, 2)) - (left, top)) * scale).ravel().tolist()
        for polygon in segmentation
        if len(polygon) >= FEWEST_COORDINATES
    ]
    if not polygons:
        return np.zeros((height, width), np.bool_)
    encoded = run_lengths.merge(run_lengths.frPyObjects(polygons, height, width))
    return run_lengths.decode(encoded).astype(np.bool_)


def box_around(mask: Mask) -> Boxes:
    """The smallest box (4,) around a mask; zeros around an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def flip_objects(objects: Objects, width: int) -> Objects:
    """The objects of the mirrored image, which is `width` pixels wide."""
    boxes, labels, masks = objects
    x1, y1, x2, y2 = boxes.T
    mirrored = np.stack([width - x2, y1, width - x1, y2], axis=1)
    return Objects(mirrored, labels, None if masks is None else masks[:, :, ::-1])


def encode_objects(image: Tensor, objects: Objects, *, size: int) -> dict[str, Tensor]:
    """An image (3, h, w) and its M objects as tensors, padded to a square of side `size`.

    Returns:
        image (3, size, size) uint8, padded with ImageNet's mean; sizes (2,), the height and width
        of what is not padding; boxes (M, 4); box_labels (M,); and masks (M, P), where there are
        some, in P bytes that `unpack_masks` reads.
    """
    height, width = image.shape[1:]
    margins = (0, size - width, 0, size - height)
    mean = [round(255 * value) for value in IMAGENET_MEAN]
    encoded = {
        "image": torch.stack(
            [
                functional.pad(channel, margins, value=value)
                for channel, value in zip(image, mean, strict=True)
            ]
        ),
        "sizes": torch.tensor([height, width]),
        "boxes": torch.from_numpy(objects.boxes),
        "box_labels": torch.from_numpy(objects.labels),
    }
    if objects.masks is not None:
        square = np.pad(objects.masks, ((0, 0), (0, size - height), (0, size - width)))
        encoded["masks"] = torch.from_numpy(pack_masks(square))
    return encoded


def collate_objects(encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack B encoded images, padding with zeros to the most objects M of one of them, at least 1.

    Returns:
        image (B, 3, S, S) uint8; sizes (B, 2); boxes (B, M, 4); box_labels (B, M), 0 where there is
        no object; and masks (B, M, P) uint8, where there are some.
    """
    most = max(1, *(len(item["boxes"]) for item in encoded))
    batch = {name: torch.stack([item[name] for item in encoded]) for name in ("image", "sizes")}
    for name in ("boxes", "box_labels", "masks"):
        if name in encoded[0]:
            batch[name] = torch.stack([_pad(item[name], most) for item in encoded])
    return batch


def pack_masks(masks: Mask) -> NDArray[np.uint8]:
    """Masks (M, H, W) at eight pixels a byte, (M, ceil(H * W / 8))."""
    number, height, width = masks.shape
    return np.packbits(masks.reshape(number, height * width), axis=1)


def unpack_masks(packed: Tensor, height: int, width: int) -> Tensor:
    """Masks (M, H, W) uint8, 0 or 1, of what `pack_masks` gave, on the same device."""
    places = torch.as_tensor(BITS, dtype=torch.uint8, device=packed.device)
    bits = (packed[..., None] >> places) & 1  # (M, P, 8)
    return bits.flatten(1)[:, : height * width].unflatten(1, (height, width))


def _read(
    example: Example, file: JpegImage | PixelImage, placement: Placement, *, with_masks: bool
) -> tuple[Tensor, Objects]:
    """The placed image (3, h, w) and its objects."""
    source, height, width = placement
    image = resize(file.decode(source), height=height, width=width)  # (3, h, w)
    whole = file.height, file.width
    return image, find_objects(example, placement, image_size=whole, with_masks=with_masks)


def _extent(length: int, scale: float, size: int) -> tuple[int, int]:
    """How many source pixels fit into `size`, and how many they become."""
    if length * scale <= size:
        return length, max(1, round(length * scale))
    return min(length, max(1, round(size / scale))), size


def _move(boxes: Boxes, placement: Placement) -> Boxes:
    """Boxes of the image in the input's pixels, possibly beyond the placed rectangle."""
    (top, left, crop_height, crop_width), height, width = placement
    corner = np.array([left, top] * 2, np.float32)
    scale = np.array([width / crop_width, height / crop_height] * 2, np.float32)
    return (boxes - corner) * scale


def _has_area(boxes: Boxes) -> NDArray[np.bool_]:
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)


def _sources(length: int, source_length: int) -> NDArray[np.int64]:
    """Which of the source pixels lies under the centre of each resized one."""
    return ((np.arange(length) + 0.5) * source_length / length).astype(np.int64)


def _decode(segmentation: dict[str, Any]) -> Mask:
    """Run lengths, compressed or not, to pixels."""
    if isinstance(segmentation["counts"], list):
        segmentation = run_lengths.frPyObjects(segmentation, *segmentation["size"])
    return run_lengths.decode(segmentation).astype(np.bool_)


def _check_masks(example: Example, image_size: tuple[int, int]) -> None:
    """See that each box has a mask, and run lengths the size of the image."""
    if len(example.masks) != len(example.box_labels):
        raise DataError(
            f"{example.location} has {len(example.box_labels)} boxes and {len(example.masks)} "
            "masks. Use data with masks (--data.source coco or scenes), or learn boxes alone with "
            "--task.masks false."
        )
    for mask in example.masks:
        if isinstance(mask, dict) and tuple(mask["size"]) != image_size:
            height, width = mask["size"]
            raise DataError(
                f"{example.location} is {image_size[1]} x {image_size[0]} pixels, and a mask of it "
                f"{width} x {height}. Mend the annotations, or use the images they were made for."
            )


def _pad(values: Tensor, length: int) -> Tensor:
    """Zeros after the last of M rows, up to `length` rows."""
    return functional.pad(values, (0, 0) * (values.dim() - 1) + (0, length - len(values)))
