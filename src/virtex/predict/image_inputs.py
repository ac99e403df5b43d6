"""What users give as images: paths, encoded files, PIL images, pixels; one, several, or stacked."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.errors import DataError

ImageInput = str | Path | bytes | Image.Image | Tensor | NDArray[np.uint8]
"""A path, an encoded file, a PIL image, or uint8 pixels: a tensor (3, H, W), an array (H, W, 3)."""
ImageInputs = ImageInput | Sequence[ImageInput]
"""One, several, or several stacked: a tensor (B, 3, H, W) or an array (B, H, W, 3)."""
ALLOWED = (
    "Allowed are paths, encoded files (bytes), PIL images, uint8 tensors (3, H, W) and uint8 "
    "arrays (H, W, 3), not normalised."
)


def as_list(images: ImageInputs) -> list[ImageInput]:
    """One picture, several, or a stack of them, as a list.

    Raises:
        DataError: Nothing that could be pictures.
    """
    if isinstance(images, Tensor | np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, str | bytes | Path | Image.Image):
        return [images]
    if not isinstance(images, Iterable):
        raise DataError(f"{images!r} is no image, and no list of images. {ALLOWED}")
    return list(images)


def as_example(picture: ImageInput) -> Example:
    """A picture as what the transforms take.

    Raises:
        DataError: It is none that we know.
    """
    if isinstance(picture, str) and picture.startswith(("http://", "https://")):
        raise DataError(f"{picture} is an address: fetch it first and give its bytes.")
    if isinstance(picture, str | Path):
        return Example(str(picture), Path(picture))
    if isinstance(picture, bytes):
        return Example(f"a file of {len(picture)} bytes", picture)
    if isinstance(picture, Image.Image):
        return Example("a PIL image", _pixels(picture))
    if isinstance(picture, Tensor) and picture.ndim == 3:
        pixels = picture.movedim(0, 2).cpu().numpy()
    else:
        pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"an image is a {type(picture).__name__} of {pixels.dtype} and shape "
            f"{tuple(np.shape(picture))}. {ALLOWED}"
        )
    return Example(f"a {type(picture).__name__}", pixels)


def _pixels(image: Image.Image) -> bytes | NDArray[np.uint8]:
    """A PIL image as the file that it came from would be read: upright, transparency on white."""
    try:
        upright = ImageOps.exif_transpose(image)
    except OSError as error:  # Pillow decodes when it is asked for pixels
        raise BadImageError("a PIL image", str(error)) from error
    if upright.mode == "F":
        raise BadImageError("a PIL image", "mode 'F' has no fixed range; give 8 bits")
    if upright.has_transparency_data or upright.mode.startswith("I"):
        file = io.BytesIO()
        upright.save(file, "PNG", compress_level=1)
        return file.getvalue()
    return np.asarray(upright.convert("RGB"))
