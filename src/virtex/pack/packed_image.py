"""An image as it is packed: reduced to a short side and encoded, or the file as it is."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from virtex.data.example import Example
from virtex.data.images import Box, OpenedImage, Pixels, open_image, read_image_file
from virtex.data.jpeg import START, encode_jpeg
from virtex.data.pillow_images import PNG_START
from virtex.data.transforms import VALIDATION_SURPLUS

JPEG = ".jpg"
KEPT = frozenset({JPEG, ".png", ".webp"})
"""Suffixes of the files that stay as they are where images are not reduced."""


class PackedImage(NamedTuple):
    """An image file and its sizes in pixels, upright."""

    data: bytes
    suffix: str
    size: tuple[int, int]
    """Width and height."""
    original_size: tuple[int, int]
    num_source_bytes: int
    """Size of the file that it was; 0 for drawn images."""


def pack_image(example: Example, *, short_side: int, quality: int) -> PackedImage:
    """Return an example's image, all of which was read.

    Args:
        short_side: Short side in pixels to which a larger image is reduced; 0 for none.
        quality: Quality of the JPEG, where one is written.

    Raises:
        BadImageError: The image is missing, corrupt or too large.
    """
    image = example.image
    if isinstance(image, Path):
        image = bytes(read_image_file(image, name=example.location))
    opened = open_image(image, name=example.location)
    data = b"" if isinstance(image, np.ndarray) else image
    size = (opened.width, opened.height)
    suffix = _suffix(data)
    is_large = 0 < short_side < min(size)
    if not is_large and suffix in (KEPT if short_side == 0 else {JPEG}):
        opened.decode(_whole(opened), min_size=1)  # finds all that is corrupt
        return PackedImage(data, suffix, size, size, len(data))
    pixels = reduce(opened, short_side) if is_large else opened.decode(_whole(opened))
    height, width, _ = pixels.shape
    return PackedImage(encode_jpeg(pixels, quality=quality), JPEG, (width, height), size, len(data))


def reduce(opened: OpenedImage, short_side: int) -> Pixels:
    """Return an image's pixels (H, W, 3) at a short side below its own.

    Bicubic, since training resizes once more, and bilinear weights keep less of the contrast
    between neighbors (`benchmarks/short_sides.py` measures what is kept).
    """
    scale = short_side / min(opened.height, opened.width)
    size = [max(short_side, round(side * scale)) for side in (opened.height, opened.width)]
    pixels = opened.decode(_whole(opened), min_size=VALIDATION_SURPLUS * short_side)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # (1, 3, h, w)
    resized = functional.interpolate(image, size=size, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def _whole(opened: OpenedImage) -> Box:
    return Box(0, 0, opened.height, opened.width)


def _suffix(data: bytes) -> str:
    """Return the suffix of a file that may stay as it is; empty for other formats."""
    if data[:3] == START:
        return JPEG
    if data[:8] == PNG_START:
        return ".png"
    return ".webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""
