"""Uploaded images: decoded within limits, and written for the page."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from virtex.data.images import Box, Pixels, open_image

MAX_PIXELS = 50_000_000
"""Largest number of pixels in a header; a larger image is not decoded."""
KEPT_SIDE = 2048
"""Longest side, in pixels, to which an image is reduced."""


def read_image(image: bytes | Path, *, min_side: int) -> Pixels:
    """Decode an image file to upright RGB pixels, and reduce large ones.

    Args:
        min_side: Length, in pixels, below which the shorter side is not reduced.

    Raises:
        BadImageError: The file is no image, is damaged, or has too many pixels.
    """
    name = image.name if isinstance(image, Path) else "the photo"
    file = open_image(image, name=name, max_pixels=MAX_PIXELS)
    pixels = file.decode(Box(0, 0, file.height, file.width), min_size=min_side)
    height, width = pixels.shape[:2]
    scale = max(KEPT_SIDE / max(height, width), min_side / min(height, width))
    if scale >= 1:
        return pixels
    size = round(width * scale), round(height * scale)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def thumbnail(pixels: Pixels, *, side: int) -> Image.Image:
    """Return an image with at most `side` pixels each way."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def encode(image: Image.Image, kind: str) -> bytes:
    """Return an image as a JPEG or WebP file."""
    file = io.BytesIO()
    image.save(file, kind, quality=87)
    return file.getvalue()


def data_uri(image: Image.Image, kind: str) -> str:
    """Return an image as a data URI of a JPEG or WebP file."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encode(image, kind)).decode()}"
