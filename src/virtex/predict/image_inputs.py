"""Images as users give them: paths, encoded files, PIL images, pixels; one, several, or stacked."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.errors import ConfigError, DataError, is_integer

Item = TypeVar("Item")
ImageInput = (
    str | Path | bytes | bytearray | memoryview | IO[bytes] | Image.Image | Tensor
    | NDArray[np.uint8]
)  # fmt: skip
"""A path, an encoded file (its bytes, or open for reading), a PIL image, or uint8 pixels: a tensor
(3, H, W), an array (H, W, 3)."""
ImageInputs = ImageInput | Sequence[ImageInput]
"""One, several, or several stacked: a tensor (B, 3, H, W) or an array (B, H, W, 3)."""
ENCODED = bytes | bytearray | memoryview
ALLOWED = (
    "Allowed are paths, encoded files (bytes, or open in binary mode), PIL images, uint8 tensors "
    "(3, H, W) and uint8 arrays (H, W, 3), not normalised."
)


def as_list(images: ImageInputs) -> list[ImageInput]:
    """Return one image, several, or a stack of them, as a list.

    Raises:
        DataError: `images` is neither an image nor a list.
    """
    if isinstance(images, Tensor | np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, str | Path | Image.Image | ENCODED) or _is_open_file(images):
        return [images]
    if not isinstance(images, Iterable):
        raise DataError(f"{images!r} is no image, and no list of images. {ALLOWED}")
    return list(images)


def as_example(image: ImageInput) -> Example:
    """Return an image as the input of the image transforms.

    Raises:
        DataError: `image` has a type, shape or dtype that is not allowed.
    """
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise DataError(f"{image} is a web address: fetch it first and give its bytes.")
    if isinstance(image, str | Path):
        return Example(str(image), Path(image))
    if isinstance(image, ENCODED):
        return Example(f"a file of {len(image)} bytes", bytes(image))
    if _is_open_file(image):
        return as_example(_content(image))
    if isinstance(image, Image.Image):
        return Example("a PIL image", _file_or_pixels(image))
    if isinstance(image, Tensor) and image.ndim == 3:
        pixels = image.movedim(0, 2).cpu().numpy()
    else:
        pixels = np.asarray(image)
    kind = type(image).__name__
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        shape = tuple(image.shape) if isinstance(image, Tensor) else pixels.shape
        raise DataError(f"an image is a {kind} of {pixels.dtype} and shape {shape}. {ALLOWED}")
    return Example(f"a {kind}", pixels)


def in_batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield batches of at most `size` items.

    Raises:
        ConfigError: `size` is no number from 1.
    """
    if not is_integer(size) or size < 1:
        raise ConfigError(f"batch_size is {size!r}, must be a whole number of at least 1")
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _is_open_file(image: object) -> TypeGuard[IO[bytes]]:
    return hasattr(image, "read")


def _content(file: IO[bytes]) -> bytes:
    """Return the whole content of an open file, wherever its position is."""
    try:
        if file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError, AttributeError) as error:  # a closed file is a ValueError
        raise BadImageError("an open file", str(error)) from error
    if not isinstance(content, bytes):
        raise DataError(f"{file!r} gives text: open it in binary mode. {ALLOWED}")
    return content


def _file_or_pixels(image: Image.Image) -> bytes | NDArray[np.uint8]:
    """Return a PIL image in a form that is read like its file: upright, transparency on white."""
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow decodes lazily, and raises many kinds on corrupt files
        raise BadImageError("a PIL image", str(error) or type(error).__name__) from error
    if upright.mode == "F":
        raise BadImageError("a PIL image", "mode 'F' has no fixed range; give 8 bits")
    if upright.has_transparency_data or upright.mode.startswith("I"):
        file = io.BytesIO()
        upright.save(file, "PNG", compress_level=1)
        return file.getvalue()
    return np.asarray(upright.convert("RGB"))
