"""Image files to RGB pixels, decoding no more of a JPEG than a crop needs.

Rows below a crop are not decoded, and a crop much larger than the network's input is decoded at
1/2, 1/4 or 1/8 by the JPEG transform itself. Every warning of the JPEG library, which would fill
the rest of a truncated file with gray, is an error here. EXIF orientation is applied, transparency
is composited over white, 16-bit gray keeps its upper 8 bits, and animations give the first frame.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from virtex.errors import DataError, printable

Pixels = NDArray[np.uint8]
"""RGB (H, W, 3)."""

MAX_PIXELS = 178_956_970
"""Most pixels of an image (Pillow's limit against decompression bombs)."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MAX_ASPECT = 200
"""Largest ratio of the sides of an image; resizing the short one would make the long one huge."""
REDUCTIONS = (8, 4, 2)
CONTEXT_ROWS = 16
"""Rows below a crop that chroma upsampling may read."""
MAX_SCANS = 100
"""Most scans of a JPEG: a few bytes of scan cost as much as the whole image. Encoders write about
ten; libtiff has the same limit."""
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
"""Start of a segment with a length, or end of the file; in pixel data 0xFF is followed by 0x00 or a
restart marker."""
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1


class BadImageError(DataError):
    """An image that is missing, corrupt, truncated or too large."""

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(location, reason)
        self.location, self.reason = location, reason

    def __str__(self) -> str:
        return printable(f"bad image {self.location}: {self.reason}")


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def open_image(image: Path | bytes | Pixels, *, name: str = "") -> "JpegImage | PixelImage":
    """Return an image of known size whose pixels are decoded on request.

    Args:
        image: See `Example.image`.
        name: Name of the image in errors; by default its path.

    Raises:
        BadImageError: The image is missing, corrupt or too large.
    """
    if isinstance(image, np.ndarray):
        return PixelImage(_checked_pixels(image, name or "array"))
    name = name or (str(image) if isinstance(image, Path) else f"of {len(image)} bytes")
    data = _read(image, name) if isinstance(image, Path) else bytearray(image)
    header = None
    if data[:3] == b"\xff\xd8\xff":
        _check_scans(data, name)
        header = _read_jpeg_header(data, name)
    if header is None or header.num_components not in (1, 3):
        return PixelImage(_decode_with_pillow(data, name))
    _check_size(header.height, header.width, name)
    return JpegImage(data, header, name)


def decode_image(image: Path | bytes | Pixels, *, name: str = "") -> Pixels:
    """Return all pixels of an image, upright; Args and Raises: see `open_image`."""
    opened = open_image(image, name=name)
    return opened.decode(Box(0, 0, opened.height, opened.width))


class PixelImage:
    """A decoded image."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def decode(self, box: Box, *, min_size: int | None = None) -> Pixels:
        """Return the pixels inside `box`."""
        top, left, height, width = box
        return self.pixels[top : top + height, left : left + width]


@dataclass(frozen=True)
class _JpegHeader:
    height: int
    width: int
    num_components: int
    size_offset: int
    """Offset of the height in the file."""
    orientation: int
    is_sequential: bool
    """Whether one scan holds all rows from top to bottom, so that decoding can stop early."""


class JpegImage:
    """A JPEG file that is decoded in part; decoding overwrites the height in `data`."""

    def __init__(self, data: bytearray, header: _JpegHeader, name: str) -> None:
        self.data, self.header, self.name = data, header, name
        self.height, self.width = header.height, header.width
        if header.orientation > 4:
            self.height, self.width = header.width, header.height

    def decode(self, box: Box, *, min_size: int | None = None) -> Pixels:
        """Return the pixels inside `box`, reduced 2, 4 or 8 times if `min_size` allows it.

        Args:
            box: The rectangle in full-size pixels, rounded to whole reduced pixels.
            min_size: Least length of the shorter side after reduction; None prevents reduction.

        Raises:
            BadImageError: The decoded part or the end of the file is corrupt or missing.
        """
        reduction = _reduction(box, min_size)
        top, left, height, width = (side // reduction for side in box)
        num_rows = self.header.height
        if self.header.is_sequential and self.header.orientation == UPRIGHT:
            num_rows = min(num_rows, box.top + box.height + CONTEXT_ROWS)
        pixels = self._decode_rows(num_rows, reduction)
        pixels = _turn_upright(pixels, self.header.orientation)
        return pixels[top : top + height, left : left + width]

    def _decode_rows(self, num_rows: int, reduction: int) -> Pixels:
        # With a smaller height in its header, the rest of the file is surplus bytes.
        offset = self.header.size_offset
        self.data[offset : offset + 2] = num_rows.to_bytes(2, "big")
        height, width = -(-num_rows // reduction), -(-self.header.width // reduction)
        pixels = np.empty((height, width, 3), np.uint8)
        try:
            simplejpeg.decode_jpeg(self.data, min_height=height, min_width=width, buffer=pixels)
        except ValueError as error:
            # The first warning is reported; a surplus one comes after the requested rows.
            is_surplus = "extraneous bytes before marker 0xd9" in str(error)
            if num_rows == self.header.height or not is_surplus:
                raise BadImageError(self.name, str(error)) from error
        return pixels


def _reduction(box: Box, min_size: int | None) -> int:
    if min_size is not None:
        for reduction in REDUCTIONS:
            if min(box.height, box.width) // reduction >= min_size:
                return reduction
    return 1


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: 2 to 4 flip or rotate by 180 degrees, 5 to 8 also transpose."""
    if orientation == UPRIGHT:
        return pixels
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _read_jpeg_header(data: bytearray, name: str) -> _JpegHeader | None:
    """Read the segments before a JPEG's pixels; return None if they are not understood."""
    frame: tuple[int, int] | None = None
    orientation, restarts, offset = UPRIGHT, False, 2
    try:
        while True:
            marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4], "big")
            if data[offset] != 0xFF:
                return None
            if marker == 0xFF:
                offset += 1
                continue
            if marker == 0xDA:
                break
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                frame = marker, offset + 5
            elif marker == 0xE1 and data[offset + 4 : offset + 10] == b"Exif\0\0":
                orientation = _orientation(data[offset + 4 : offset + 2 + length])
            elif marker == 0xDD:
                restarts = True
            offset += 2 + length
        if frame is None:
            return None
        num_scanned = data[offset + 4]
        kind, size_offset = frame
        height, width = (
            int.from_bytes(data[at : at + 2], "big") for at in (size_offset, size_offset + 2)
        )
        num_components = data[size_offset + 4]
    except IndexError:
        raise BadImageError(name, "truncated before its first pixel") from None
    one_pass = kind in (0xC0, 0xC1) and num_scanned == num_components and not restarts
    return _JpegHeader(height, width, num_components, size_offset, orientation, one_pass)


def _check_scans(data: bytearray, name: str) -> None:
    scan = b"\xff\xda"
    if data.count(scan) <= MAX_SCANS:  # includes thumbnails and surplus bytes
        return
    num_scans, offset = 0, 2
    while (found := MARKER.search(data, offset)) and found[1] != b"\xd9":
        num_scans += found[0] == scan
        if num_scans > MAX_SCANS:
            raise BadImageError(name, f"a JPEG of more than {MAX_SCANS} scans")
        offset = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _orientation(segment: bytearray) -> int:
    exif = Image.Exif()
    try:
        exif.load(bytes(segment))
        orientation = exif.get(EXIF_ORIENTATION, UPRIGHT)
    except Exception:  # any kind; broken EXIF does not make a broken image
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def _decode_with_pillow(data: bytearray, name: str) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.height, image.width, name)
            return _to_rgb(image, name)
    except BadImageError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on corrupt files
        reason = str(error) or type(error).__name__
        if not data or isinstance(error, UnidentifiedImageError):  # its text names our buffer
            reason = "not an image"
        raise BadImageError(name, reason) from error


def _to_rgb(image: Image.Image, name: str) -> Pixels:
    image.load()
    if image.mode in ("I", "F"):
        raise BadImageError(name, f"mode {image.mode!r} has no fixed range; save it with 8 bits")
    if image.mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.uint16) >> 8
        image = Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright)
    return np.array(upright.convert("RGB"))


def _checked_pixels(pixels: Pixels, name: str) -> Pixels:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise BadImageError(name, f"pixels must be uint8 (H, W, 3); found {found}")
    return np.require(pixels, requirements=("C", "W"))


def _check_size(height: int, width: int, name: str) -> None:
    if not height or not width:
        raise BadImageError(name, f"{width} x {height} pixels")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise BadImageError(
            name, f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other"
        )
    if height * width > MAX_PIXELS:
        raise BadImageError(
            name, f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed"
        )


def _read(path: Path, name: str) -> bytearray:
    try:
        return bytearray(path.read_bytes())
    except OSError as error:
        raise BadImageError(name, error.strerror or str(error)) from error
