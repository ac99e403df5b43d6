"""Image, boxes and masks changed together: how large a detector sees them, and which way round.

Two ways. A square input, with the scale jitter of Ghiasi et al., "Simple Copy-Paste" (CVPR 2021),
section 3: an image that just fits is zoomed by a random factor; what is then too large is cropped
at random, what is too small is padded. And Faster R-CNN's (Ren et al., NeurIPS 2015): the shorter
side gets a length, or as much of it as the longer side allows. The image keeps its shape.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import Box, open_image
from virtex.data.masks import Placement
from virtex.data.objects import encode_objects, flip_objects, read_objects
from virtex.data.transforms import ImageConfig, flip_and_recolor


@dataclass(frozen=True)
class ZoomTransform:
    """Random zoom and place in a square, flip, change of colours.

    Of the image options scale and ratio do not apply: an image keeps its shape.
    """

    config: ImageConfig
    zoom: tuple[float, float]
    """Smallest and largest factor; at 1 the longer side just fits."""
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """Tensors for `ObjectCollate`; see `encode_objects`.

        Raises:
            BadImageError: The image is missing, corrupt, truncated or too large.
            DataError: Masks are asked for, and the example has none or not its image's.
        """
        size, (low, high) = self.config.size, self.zoom
        share, down, right = rng.random(3).tolist()
        file = open_image(example.image, name=example.location)
        zoom = low + share * (high - low)
        placement = place_in_square(
            file.height, file.width, size=size, zoom=zoom, down=down, right=right
        )
        image, objects = read_objects(example, file, placement, with_masks=self.with_masks)
        image, is_flipped = flip_and_recolor(image, self.config, rng)
        if is_flipped:
            objects = flip_objects(objects, placement.width)
        return encode_objects(image, objects, image_size=(file.height, file.width))


@dataclass(frozen=True)
class WholeImageTransform:
    """The whole image, as large as fits into a square."""

    size: int
    """Side of the square."""
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """As in training, without randomness."""
        del rng
        file = open_image(example.image, name=example.location)
        placement = place_in_square(file.height, file.width, size=self.size)
        image, objects = read_objects(example, file, placement, with_masks=self.with_masks)
        return encode_objects(image, objects, image_size=(file.height, file.width))


@dataclass(frozen=True)
class ShorterSideTransform:
    """The whole image, its shorter side resized to one of several lengths, and flipped."""

    sizes: tuple[int, ...]
    """Lengths of the shorter side, in pixels; one is drawn for each image."""
    max_size: int
    """The longer side becomes no longer than this; the shorter one follows."""
    flip_prob: float
    with_masks: bool

    def __call__(self, example: Example, rng: np.random.Generator) -> dict[str, Tensor]:
        """Tensors for `ObjectCollate`; see `encode_objects`.

        Raises:
            BadImageError: The image is missing, corrupt, truncated or too large.
            DataError: Masks are asked for, and the example has none or not its image's.
        """
        size, flip = self.sizes[rng.integers(len(self.sizes))], rng.random()
        file = open_image(example.image, name=example.location)
        placement = place_by_shorter_side(
            file.height, file.width, size=size, max_size=self.max_size
        )
        image, objects = read_objects(example, file, placement, with_masks=self.with_masks)
        if flip < self.flip_prob:
            image, objects = image.flip(2), flip_objects(objects, placement.width)
        return encode_objects(image, objects, image_size=(file.height, file.width))


def place_in_square(
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


def place_by_shorter_side(height: int, width: int, *, size: int, max_size: int) -> Placement:
    """The whole image with a shorter side of `size`, or what a longer one of `max_size` allows."""
    scale = min(size / min(height, width), max_size / max(height, width))
    resized = (max(1, round(length * scale)) for length in (height, width))
    return Placement(Box(0, 0, height, width), *resized)


def _extent(length: int, scale: float, size: int) -> tuple[int, int]:
    """How many source pixels fit into `size`, and how many they become."""
    if length * scale <= size:
        return length, max(1, round(length * scale))
    return min(length, max(1, round(size / scale))), size
