"""Image files to RGB pixels: JPEG in part, other formats by Pillow."""

import errno
from pathlib import Path

import numpy as np

from virtex.data.jpeg import START, JpegImage, check_scans, read_header
from virtex.data.pillow_images import PillowImage, read_raster
from virtex.data.pixels import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    BadImageError,
    Box,
    Pixels,
    check_memory,
    check_size,
)
from virtex.files import read_regular

__all__ = [
    "MAX_PIXELS",
    "BadImageError",
    "Box",
    "OpenedImage",
    "Pixels",
    "decode_image",
    "open_image",
    "read_image_file",
]


class PixelImage:
    """A decoded image."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def decode(self, box: Box, *, min_size: int | None = None) -> Pixels:
        """Return the pixels inside `box`."""
        top, left, height, width = box
        return self.pixels[top : top + height, left : left + width]


OpenedImage = JpegImage | PillowImage | PixelImage


def open_image(
    image: Path | bytes | Pixels, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> OpenedImage:
    """Return an image of known size whose pixels are decoded on request.

    Args:
        image: See `Example.image`.
        name: Name of the image in errors; by default its path.
        max_pixels: Most pixels of an image file.

    Raises:
        BadImageError: The image is missing, corrupt or too large.
    """
    if isinstance(image, np.ndarray):
        return PixelImage(_checked_pixels(image, name or "array"))
    name = name or (str(image) if isinstance(image, Path) else f"of {len(image)} bytes")
    data = read_image_file(image, name=name) if isinstance(image, Path) else bytearray(image)
    header = None
    if data[:3] == START:
        check_scans(data, name)
        header = read_header(data, name)
    if header is not None:
        check_size(header.height, header.width, name, max_pixels=max_pixels)
        if header.num_components in (1, 3):
            return JpegImage(data, header, name)
        check_memory(header.coefficient_bytes, name)
    return read_raster(data, name, max_pixels=max_pixels)


def decode_image(image: Path | bytes | Pixels, *, name: str = "") -> Pixels:
    """Return all pixels of an image, upright; Args and Raises: see `open_image`."""
    opened = open_image(image, name=name)
    return opened.decode(Box(0, 0, opened.height, opened.width))


def read_image_file(path: Path, *, name: str) -> bytearray:
    """Return the content of an image file; a BadImageError says that it cannot be read."""
    try:
        return read_regular(path, limit=MAX_FILE_BYTES)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # no fault of the image
            raise
        raise BadImageError(name, error.strerror or str(error)) from error


def _checked_pixels(pixels: Pixels, name: str) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise BadImageError(name, f"pixels must be uint8 (H, W, 3); found {found}")
    return np.require(pixels, requirements=("C", "W"))
