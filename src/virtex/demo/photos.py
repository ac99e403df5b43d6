"""Photographs from strangers: no more pixels than are needed, and errors in words."""

import base64
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from virtex.data.images import FORMATS, BadImageError, Box, Pixels, open_image

MAX_PIXELS = 50_000_000
"""Larger pictures are refused for what their header says, before anything is decoded."""
KEPT_SIDE = 2048
"""Longest side of what is kept while a visitor asks about a photograph."""
NOT_A_PICTURE = (
    "not a picture of a kind that is known here: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
)


def read_photo(path: Path, *, min_side: int) -> Pixels:
    """The upright RGB pixels of a file, reduced where it is much larger than is needed.

    Args:
        min_side: The shorter side is not reduced below this.

    Raises:
        BadImageError: No picture, a damaged one, or one of too many pixels.
    """
    _check_header(path)
    file = open_image(path, name=path.name)
    pixels = file.decode(Box(0, 0, file.height, file.width), min_size=min_side)
    height, width = pixels.shape[:2]
    scale = max(KEPT_SIDE / max(height, width), min_side / min(height, width))
    if scale >= 1:
        return pixels
    size = round(width * scale), round(height * scale)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def data_uri(pixels: Pixels, *, side: int) -> str:
    """A picture of at most `side` pixels each way, as a JPEG that a page can hold."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return as_data_uri(image, "JPEG")


def as_data_uri(image: Image.Image, kind: str) -> str:
    """An image as a JPEG or WebP that a page can hold."""
    file = io.BytesIO()
    image.save(file, kind, quality=87)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _check_header(path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                num_pixels = image.width * image.height
    except Image.DecompressionBombError:
        num_pixels = MAX_PIXELS + 1
    except Exception as error:  # Pillow's readers raise many kinds on bytes from the wild
        raise BadImageError(path.name, NOT_A_PICTURE) from error
    if num_pixels > MAX_PIXELS:
        raise BadImageError(
            path.name, f"larger than {MAX_PIXELS // 1_000_000} million pixels; make it smaller"
        )
