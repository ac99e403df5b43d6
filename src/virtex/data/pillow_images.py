"""Images that Pillow decodes: all formats but JPEG, and JPEG files of unusual colors.

The raster is held as the format has it, and only the requested part is converted to RGB, a band of
rows at a time: orientation is applied, transparency is composited over white, 16-bit gray keeps its
upper 8 bits, and animations give the first frame.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from virtex.data.jpeg import read_orientation
from virtex.data.pixels import (
    MAX_PIXELS,
    BadImageError,
    Box,
    Pixels,
    check_memory,
    check_size,
    too_large,
    turn_upright,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
NOT_AN_IMAGE = "not an image in a known format: JPEG, PNG, WebP, GIF, BMP, TIFF, PPM or AVIF"
UNREAD = {
    b"ftyphei": "a HEIC image",
    b"ftyphev": "a HEIC image",
    b"ftypmif1": "a HEIC image",
    b"ftypmsf1": "a HEIC image",
    b"JXL ": "a JPEG XL image",
    b"jP  ": "a JPEG 2000 image",
}
"""Formats that are not read, by the bytes from the fifth on."""
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
PNG_ADDITIONS = frozenset({b"tRNS", b"eXIf"})
"""Chunks that change the pixels, where they are intact."""
PNG_DEPTH_AT = 24
"""Position of the byte that holds a PNG's bits for each sample."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""TIFF's tag of what a gray value means, and the value for which 0 is white."""
BAND_PIXELS = 2**22
"""Pixels that are converted at a time."""
DECODER_BYTES = {"WEBP": 16, "AVIF": 16}
"""Bytes that a decoder takes for each pixel, its own copies included."""
RASTER_BYTES = {"1": 1, "L": 1, "P": 1}
"""Bytes of a pixel in Pillow's modes; 4 in the others."""


class PillowImage:
    """A raster in its format's colors."""

    def __init__(self, raster: Image.Image, orientation: int, name: str) -> None:
        self._raster, self._orientation, self._name = raster, orientation, name
        self.height, self.width = raster.height, raster.width
        if orientation > 4:
            self.height, self.width = raster.width, raster.height

    def decode(self, box: Box, *, min_size: int | None = None) -> Pixels:
        """Return the pixels inside `box`, not reduced; a BadImageError says that it cannot."""
        del min_size
        top, left, height, width = self._in_raster(box)
        pixels = np.empty((height, width, 3), np.uint8)
        num_rows = max(1, BAND_PIXELS // width)
        for row in range(0, height, num_rows):
            end = min(height, row + num_rows)
            part = self._raster.crop((left, top + row, left + width, top + end))
            try:
                pixels[row:end] = _to_rgb(part)
            except Exception as error:  # Pillow converts few colors but its own
                raise BadImageError(self._name, str(error) or type(error).__name__) from error
        return np.ascontiguousarray(turn_upright(pixels, self._orientation))

    def _in_raster(self, box: Box) -> Box:
        """Return the box before the orientation is undone."""
        top, left, height, width = box
        if self._orientation in (2, 3, 6, 7):
            left = self.width - left - width
        if self._orientation in (3, 4, 7, 8):
            top = self.height - top - height
        if self._orientation > 4:
            top, left, height, width = left, top, width, height
        return Box(top, left, height, width)


def read_raster(data: bytearray, name: str, *, max_pixels: int = MAX_PIXELS) -> PillowImage:
    """Decode a file; a PNG that cannot be read with its metadata is read without them.

    Raises:
        BadImageError: The file is corrupt, truncated, too large, or in another format.
    """
    try:
        return _open(data, name, max_pixels=max_pixels)
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds on corrupt files
        reason = _reason(error, data, max_pixels)
    if data[:8] == PNG_START:
        bare = _without_metadata(data)
        if len(bare) < len(data):
            return read_raster(bare, name, max_pixels=max_pixels)
    raise BadImageError(name, reason)


def _open(data: bytearray, name: str, *, max_pixels: int) -> PillowImage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, and of metadata
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(image.height, image.width, name, max_pixels=max_pixels)
            num_bytes = DECODER_BYTES.get(image.format or "") or RASTER_BYTES.get(image.mode, 4)
            check_memory((num_bytes + 3) * image.height * image.width, name)
            image.load()
            if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
                reason = f"mode {image.mode!r} has no fixed range; save it with 8 bits"
                raise BadImageError(name, reason)
            return PillowImage(_mended(image, data), _orientation(image), name)


def _orientation(image: Image.Image) -> int:
    try:
        return read_orientation(image.getexif())
    except Exception:  # any kind; broken EXIF does not make a broken image
        return 1


def _mended(image: Image.Image, data: bytearray) -> Image.Image:
    """Return a raster with what Pillow leaves undone: inverted gray, the depth of a color key."""
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            return Image.fromarray(~np.asarray(image).astype(np.uint16))
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None:
        return image
    depth = data[PNG_DEPTH_AT]
    if image.mode == "L" and depth in (2, 4):
        image.info["transparency"] = key * 255 // (2**depth - 1)
    elif image.mode == "RGB" and depth == 16:  # the upper bytes alone are read
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


def _to_rgb(part: Image.Image) -> Pixels:
    if part.mode.startswith("I"):
        levels = np.asarray(part).astype(np.uint16)
        gray = (levels >> 8).astype(np.uint8)
        gray[levels == part.info.get("transparency")] = 255
        part = Image.fromarray(gray)
    if part.has_transparency_data:
        part = part.convert("RGBA")
        part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
    return np.asarray(part.convert("RGB"))


def _reason(error: Exception, data: bytearray, max_pixels: int) -> str:
    if not data:
        return "an empty file"
    for start, kind in UNREAD.items():
        if data[4 : 4 + len(start)] == start:
            return f"{kind}, which is not read; convert it to JPEG"
    if isinstance(error, UnidentifiedImageError):  # its text names our buffer
        return NOT_AN_IMAGE
    if isinstance(error, Image.DecompressionBombError):
        return too_large(max_pixels)
    return str(error) or type(error).__name__


def _without_metadata(data: bytearray) -> bytearray:
    """Return a PNG file without text, color profiles, later frames, and chunks that are damaged."""
    kept, offset = bytearray(PNG_START), len(PNG_START)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        chunk = memoryview(data)[offset:end]
        checksum = zlib.crc32(chunk[4:-4]).to_bytes(4, "big")
        is_intact = end <= len(data) and chunk[-4:] == checksum
        if kind in PNG_PIXELS or (kind in PNG_ADDITIONS and is_intact):
            kept += chunk
        offset = end
    return kept
