"""COCO's segmentations, checked before anything is drawn: run lengths and polygons."""

import math
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from virtex.data.images import MAX_PIXELS
from virtex.errors import DataError

FEWEST_COORDINATES = 6
"""Least coordinates of a polygon with an area."""
MAX_COORDINATE = 1e8
"""Largest coordinate that is drawn; pycocotools multiplies by 5 and rounds to 32 bits."""
MAX_OUTLINE = 2e6
"""Longest outline of an object in pixels; pycocotools takes 100 bytes for each."""
FIRST_LETTER, LAST_LETTER = 48, 111
"""Letters of compressed run lengths: 5 bits of a number, and whether it continues."""
CONTINUES, IS_NEGATIVE = 0x20, 0x10
BITS_A_LETTER = 5
MOST_LETTERS = 7
"""Most letters of a number of 32 bits with its sign."""


class BadMaskError(DataError):
    """A segmentation that cannot be drawn."""


def run_lengths_in(segmentation: Any) -> NDArray[np.int64]:
    """Return the run lengths (K,) of {"size": [H, W], "counts": ...}, zeros first.

    Raises:
        BadMaskError: They do not add up to H * W, or are malformed.
    """
    height, width = size_of(segmentation)
    counts = segmentation.get("counts")
    if isinstance(counts, str | bytes):
        runs = _decompress(counts)
    elif is_numbers(counts):
        numbers = np.asarray(counts, np.float64)
        if np.any((numbers != np.floor(numbers)) | (numbers > MAX_PIXELS)):
            raise BadMaskError("run lengths that are not whole numbers of pixels")
        runs = numbers.astype(np.int64)
    else:
        raise BadMaskError('"counts" that are neither a list of numbers nor text')
    if np.any(runs < 0):
        raise BadMaskError("a negative run length")
    if runs.sum() != height * width:
        raise BadMaskError(f"run lengths of {runs.sum():,} pixels, not {height} x {width}")
    return runs


def size_of(segmentation: Any) -> tuple[int, int]:
    """Return the height and width of run lengths, or raise a BadMaskError."""
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    size = list(size) if isinstance(size, tuple) else size
    if not is_numbers(size) or len(size) != 2 or any(side != int(side) for side in size):
        raise BadMaskError('a "size" that is not [height, width]')
    height, width = map(int, size)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise BadMaskError(f"a mask of {width} x {height} pixels")
    return height, width


def polygons_in(segmentation: Any) -> list[NDArray[np.number]]:
    """Return polygons, each x, y, x, y, ... of finite numbers.

    Raises:
        BadMaskError: They are malformed, or would take far more memory than their image.
    """
    if not isinstance(segmentation, list | tuple):
        raise BadMaskError("a mask that is neither polygons nor run lengths")
    polygons = [_polygon(one) for one in segmentation]
    total = sum(
        np.abs(points - np.roll(points, 1, axis=0)).max(1).sum()
        for points in (polygon.reshape(-1, 2) for polygon in polygons)
    )
    if total > MAX_OUTLINE:
        raise BadMaskError(f"an outline of {total:,.0f} pixels, more than {MAX_OUTLINE:,.0f}")
    return polygons


def is_numbers(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of finite numbers."""
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        return False
    try:
        return math.isfinite(sum(map(float, value)))
    except OverflowError:  # an integer that no float can hold
        return False


def _decompress(text: str | bytes) -> NDArray[np.int64]:
    """Return run lengths from COCO's letters, each 5 bits of a number, the lowest first.

    From the fourth on, a number is the difference to the last but one run length.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    letters = np.frombuffer(data, np.uint8).astype(np.int64)
    if np.any((letters < FIRST_LETTER) | (letters > LAST_LETTER)):
        raise BadMaskError("compressed run lengths with letters that are none of theirs")
    bits = letters - FIRST_LETTER
    is_last = (bits & CONTINUES) == 0
    if not len(bits) or not is_last[-1]:
        raise BadMaskError("compressed run lengths that are cut off")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    num_letters = ends - starts + 1
    if num_letters.max() > MOST_LETTERS:
        raise BadMaskError("a compressed run length that is too large")
    places = np.arange(len(bits)) - np.repeat(starts, num_letters)
    numbers = np.add.reduceat((bits & (CONTINUES - 1)) << (BITS_A_LETTER * places), starts)
    is_negative = (bits[ends] & IS_NEGATIVE) > 0
    numbers -= is_negative.astype(np.int64) << (BITS_A_LETTER * num_letters)
    for first in (1, 2):  # the odd and the even ones
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _polygon(values: Any) -> NDArray[np.number]:
    try:
        numbers = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise BadMaskError("a polygon of lists") from None
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1 or not numbers.size or numbers.size % 2:
        raise BadMaskError("a polygon that is not [x, y, x, y, ...]")
    if not np.abs(numbers).max() <= MAX_COORDINATE:
        raise BadMaskError("a polygon with coordinates that are not finite or far too large")
    return numbers
