"""Pixels of an image, a rectangle of them, the limits on both, and the error of a bad image."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.errors import DataError, one_line

Pixels = NDArray[np.uint8]
"""RGB (H, W, 3)."""

MAX_PIXELS = 178_956_970
"""Most pixels of an image (Pillow's limit against decompression bombs)."""
MAX_DECODED_BYTES = 2**30
"""Most memory in bytes that decoding an image may take, as estimated from its header."""
MAX_FILE_BYTES = 2**30
"""Largest size of an image file."""
MAX_ASPECT = 200
"""Largest ratio of the sides of an image; resizing the short one would make the long one huge."""


class BadImageError(DataError):
    """An image that is missing, corrupt, truncated or too large."""

    def __init__(self, location: str, reason: str) -> None:
        location, reason = one_line(location), one_line(reason)
        super().__init__(location, reason)
        self.location, self.reason = location, reason

    def __str__(self) -> str:
        return f"bad image {self.location}: {self.reason}"


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def check_size(height: int, width: int, name: str, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raise a BadImageError for an image without pixels, with too many, or too thin."""
    size = f"{width} x {height} pixels"
    if not height or not width:
        raise BadImageError(name, size)
    if height * width > max_pixels:
        raise BadImageError(name, f"{size}, {too_large(max_pixels)}")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise BadImageError(name, f"{size}: one side is more than {MAX_ASPECT} times the other")


def too_large(max_pixels: int) -> str:
    """Return the reason why an image of more than `max_pixels` is bad."""
    return f"larger than {max_pixels // 1_000_000} million pixels; make it smaller"


def check_memory(num_bytes: int, name: str) -> None:
    """Raise a BadImageError for an image that would take too much memory."""
    if num_bytes > MAX_DECODED_BYTES:
        needed, limit = (round(count / 2**20) for count in (num_bytes, MAX_DECODED_BYTES))
        raise BadImageError(
            name,
            f"decoding it would take {needed:,} MiB, more than {limit:,} MiB; make it smaller, or "
            "save it as a JPEG, which is decoded in part",
        )


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return a view that undoes an EXIF orientation.

    2 to 4 flip or rotate by 180 degrees, 5 to 8 also transpose.
    """
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
