"""Transforms that resize, crop and flip an image together with its boxes and masks.

ZoomTransform is the scale jitter of Ghiasi et al., "Simple Copy-Paste" (CVPR 2021), section 3: an
image that just fits a square is zoomed by a random factor, and then cropped at random or padded.
ShorterSideTransform is Faster R-CNN's (Ren et al., NeurIPS 2015): the shorter side gets a given
length, or less if the longer side would become too long. The aspect ratio never changes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import Box, open_image
from virtex.data.masks import Placement
from virtex.data.objects import Objects, encode_objects, flip_objects, read_objects
from virtex.data.transforms import ImageConfig, flip_and_recolor


class PlacedImage(NamedTuple):
    """An image as the network sees it, with its objects."""

    image: Tensor
    """(3, h, w) uint8, at most as large as the square input."""
    objects: Objects
    image_size: tuple[int, int]
    """Height and width of the image in its file."""
    is_flipped: bool = False


@dataclass(frozen=True)
class ZoomTransform:
    """Random zoom, crop, flip and color jitter in a square; ignores the options scale and ratio."""

    config: ImageConfig
    zoom: tuple[float, float]
    """Range of the factor; at 1 the longer side just fits."""
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the tensors of `encode_objects`."""
        image, objects, image_size, _ = self.place(example, rng)
        return encode_objects(image, objects, image_size=image_size, rng=rng)

    def place(self, example: Example, rng: np.random.Generator) -> PlacedImage:
        """Return the augmented image and its objects."""
        size, (low, high) = self.config.size, self.zoom
        fraction, down, right = rng.random(3).tolist()
        file = open_image(example.image, name=example.location)
        zoom = low + fraction * (high - low)
        placement = place_in_square(
            file.height, file.width, size=size, zoom=zoom, down=down, right=right
        )
        image, objects = read_objects(example, file, placement, with_masks=self.with_masks)
        image, is_flipped = flip_and_recolor(image, self.config, rng)
        if is_flipped:
            objects = flip_objects(objects, placement.width)
        return PlacedImage(image, objects, (file.height, file.width), is_flipped)


@dataclass(frozen=True)
class WholeImageTransform:
    """The whole image, as large as fits into a square; random is only the seed of the sampling."""

    size: int
    """Side of the square."""
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the tensors of `encode_objects`."""
        image, objects, image_size, _ = self.place(example)
        return encode_objects(image, objects, image_size=image_size, rng=rng)

    def place(self, example: Example) -> PlacedImage:
        """Return the resized image and its objects."""
        file = open_image(example.image, name=example.location)
        placement = place_in_square(file.height, file.width, size=self.size)
        image, objects = read_objects(example, file, placement, with_masks=self.with_masks)
        return PlacedImage(image, objects, (file.height, file.width))


@dataclass(frozen=True)
class ShorterSideTransform:
    """The whole image, its shorter side resized to one of several lengths, with random flips."""

    sizes: tuple[int, ...]
    """Lengths of the shorter side in pixels, of which one is drawn for each image."""
    max_size: int
    """Largest length of the longer side in pixels."""
    flip_prob: float
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the tensors of `encode_objects`."""
        size, flip = self.sizes[rng.integers(len(self.sizes))], rng.random()
        file = open_image(example.image, name=example.location)
        placement = place_by_shorter_side(
            file.height, file.width, size=size, max_size=self.max_size
        )
        image, objects = read_objects(example, file, placement, with_masks=self.with_masks)
        if flip < self.flip_prob:
            image, objects = image.flip(2), flip_objects(objects, placement.width)
        return encode_objects(image, objects, image_size=(file.height, file.width), rng=rng)


def place_in_square(
    height: int, width: int, *, size: int, zoom: float = 1.0, down: float = 0.0, right: float = 0.0
) -> Placement:
    """Return the placement of an image of `height` and `width` in a square input of side `size`.

    Args:
        zoom: Factor of the scale at which the longer side just fits.
        down: Vertical position of the crop, from 0 (top) to below 1 (bottom).
        right: Horizontal position of the crop, from 0 (left) to below 1 (right).
    """
    scale = zoom * size / max(height, width)
    crop_height, out_height = _extent(height, scale, size)
    crop_width, out_width = _extent(width, scale, size)
    top = int(down * (height - crop_height + 1))
    left = int(right * (width - crop_width + 1))
    return Placement(Box(top, left, crop_height, crop_width), out_height, out_width)


def place_by_shorter_side(height: int, width: int, *, size: int, max_size: int) -> Placement:
    """Return the placement with a shorter side of `size` and a longer one up to `max_size`."""
    scale = min(size / min(height, width), max_size / max(height, width))
    resized = (max(1, int(length * scale + 0.5)) for length in (height, width))
    return Placement(Box(0, 0, height, width), *resized)


def _extent(length: int, scale: float, size: int) -> tuple[int, int]:
    """Return how many source pixels fit into `size`, and their number after resizing."""
    if length * scale <= size:
        return length, max(1, round(length * scale))
    return min(length, max(1, round(size / scale))), size
