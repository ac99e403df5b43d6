"""JPEG files, of which no more is decoded than a crop needs.

Rows below a crop are not decoded, and a crop much larger than the network's input is decoded at
1/2, 1/4 or 1/8 by the JPEG transform itself. The warnings of the JPEG library, which would fill the
rest of a truncated file with gray, are errors here, except where the file holds all pixels: what
decoders warn of in a header is corrected, and a few surplus bytes are skipped.
"""

import re
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from virtex.data.pixels import BadImageError, Box, Pixels, check_memory, turn_upright

START = b"\xff\xd8\xff"
"""The first bytes of a JPEG file."""
REDUCTIONS = (8, 4, 2)
CONTEXT_ROWS = 16
"""Rows below a crop that chroma upsampling may read."""
MAX_SCANS = 100
"""Most scans of a JPEG: a few bytes of scan cost as much as the whole image. Encoders write about
ten; libtiff has the same limit."""
MAX_SURPLUS = 16
"""Most bytes of any kind before the end mark. Corrupt pixels leave dozens of bytes undecoded."""
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
"""Start of a segment with a length, or end of the file; in pixel data 0xFF is followed by 0x00 or a
restart marker."""
NO_SEGMENT = frozenset({0x00, 0x01, 0xFF, *range(0xD0, 0xD8)})
"""Bytes that do not start a segment behind 0xFF."""
SURPLUS = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
HARMLESS = re.compile(r"Invalid SOS parameters|Inconsistent progression sequence")
"""Warnings of files whose pixels are decoded all the same."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame: of its size, and how it is coded."""
SEQUENTIAL = frozenset({0xC0, 0xC1})
"""Frames of Huffman codes whose coefficients come in one piece."""
EOI, SOS, DRI, APP0, APP1, APP2, APP14 = 0xD9, 0xDA, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1


class Segment(NamedTuple):
    """A part of a JPEG header, from `start` to `end` in the file."""

    marker: int
    start: int
    end: int


@dataclass(frozen=True)
class JpegHeader:
    """The properties of a JPEG file that say how it is decoded."""

    height: int
    width: int
    num_components: int
    size_offset: int
    """Offset of the height in the file."""
    scan_offset: int
    """Offset of the first scan in the file."""
    orientation: int
    is_sequential: bool
    """Whether one scan holds all rows from top to bottom, so that decoding can stop early."""
    coefficient_bytes: int
    """Memory for the coefficients of the whole image, where several scans refine them."""


class JpegImage:
    """A JPEG file that is decoded in part; decoding overwrites the height in `data`."""

    def __init__(self, data: bytearray, header: JpegHeader, name: str) -> None:
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
            BadImageError: The decoded part or the end of the file is corrupt or missing, or would
                take too much memory.
        """
        reduction = _reduction(box, min_size)
        top, left, height, width = (side // reduction for side in box)
        num_rows = self.header.height
        if self.header.is_sequential and self.header.orientation == UPRIGHT:
            num_rows = min(num_rows, box.top + box.height + CONTEXT_ROWS)
        pixels = self._decode_rows(num_rows, reduction)
        if self.header.orientation == UPRIGHT:
            return pixels[top : top + height, left : left + width]
        pixels = turn_upright(pixels, self.header.orientation)
        return np.ascontiguousarray(pixels[top : top + height, left : left + width])

    def _decode_rows(self, num_rows: int, reduction: int) -> Pixels:
        # With a smaller height in its header, the rest of the file is surplus bytes.
        offset = self.header.size_offset
        self.data[offset : offset + 2] = num_rows.to_bytes(2, "big")
        height, width = -(-num_rows // reduction), -(-self.header.width // reduction)
        copies = 1 if self.header.orientation == UPRIGHT else 2
        check_memory(self.header.coefficient_bytes + copies * 3 * height * width, self.name)
        pixels = np.empty((height, width, 3), np.uint8)
        try:
            simplejpeg.decode_jpeg(self.data, min_height=height, min_width=width, buffer=pixels)
        except ValueError as error:  # with the first warning; the pixels are decoded all the same
            is_part = num_rows < self.header.height
            if not _is_harmless(str(error), self.data, self.header, is_part=is_part):
                raise BadImageError(self.name, str(error)) from error
        return pixels


def read_header(data: bytearray, name: str) -> JpegHeader | None:
    """Read the segments before a JPEG's pixels; return None if they are not understood.

    What decoders would warn of is corrected in `data`: bytes between segments, color profiles, an
    unknown JFIF version or Adobe transform, and parameters that a sequential scan does not use.

    Raises:
        BadImageError: The file ends before its first pixel.
    """
    segments: list[Segment] = []
    surplus, offset = False, 2
    try:
        while True:
            if data[offset] != 0xFF or data[offset + 1] in NO_SEGMENT:
                found = MARKER.search(data, offset)
                if found is None:
                    raise IndexError
                surplus, offset = True, found.start()
            marker = data[offset + 1]
            length = data[offset + 2] << 8 | data[offset + 3]
            if marker == EOI or length < 2:
                return None
            segments.append(Segment(marker, offset, offset + 2 + length))
            if marker == SOS:
                break
            offset += 2 + length
        if surplus:
            header = b"".join(data[one.start : one.end] for one in segments[:-1])
            data[2 : segments[-1].start] = header
            return read_header(data, name)
        return _header_of(data, segments)
    except IndexError:
        raise BadImageError(name, "truncated before its first pixel") from None


def encode_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """Return pixels as a JPEG file with colors at half the resolution, as most encoders write."""
    pixels = np.ascontiguousarray(pixels)
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420")


def check_scans(data: bytearray, name: str) -> None:
    """Raise a BadImageError for a JPEG of more than MAX_SCANS scans."""
    scan = b"\xff\xda"
    if data.count(scan) <= MAX_SCANS:  # includes thumbnails and surplus bytes
        return
    num_scans, offset = 0, 2
    while (found := MARKER.search(data, offset)) and found[1] != b"\xd9":
        num_scans += found[0] == scan
        if num_scans > MAX_SCANS:
            raise BadImageError(name, f"a JPEG of more than {MAX_SCANS} scans")
        offset = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def read_orientation(exif: Image.Exif) -> int:
    """Return the orientation in EXIF data, 1 to 8; an unknown one is upright."""
    orientation = exif.get(EXIF_ORIENTATION, UPRIGHT)
    return orientation if orientation in range(1, 9) else UPRIGHT


def _reduction(box: Box, min_size: int | None) -> int:
    if min_size is not None:
        for reduction in REDUCTIONS:
            if min(box.height, box.width) // reduction >= min_size:
                return reduction
    return 1


def _header_of(data: bytearray, segments: list[Segment]) -> JpegHeader | None:
    """Return the header in these segments, of which the last one is the first scan's."""
    frames = [one for one in segments if one.marker in FRAMES]
    if not frames:
        return None
    kind, start, _ = frames[-1]
    scan = segments[-1].start
    size, num_components, num_scanned = start + 5, data[start + 9], data[scan + 4]
    height, width = (data[at] << 8 | data[at + 1] for at in (size, size + 2))
    for segment in segments:
        if segment.marker >= APP0:
            _correct(data, segment, num_components)
    parameters = scan + 5 + 2 * num_scanned
    if kind in SEQUENTIAL and parameters + 3 <= len(data):
        data[parameters : parameters + 3] = b"\x00\x3f\x00"
    is_one_scan = kind in SEQUENTIAL and num_scanned == num_components
    components = data[start + 10 : start + 10 + 3 * num_components]
    return JpegHeader(
        height=height,
        width=width,
        num_components=num_components,
        size_offset=size,
        scan_offset=scan,
        orientation=_orientation(data, segments),
        is_sequential=is_one_scan and not any(one.marker == DRI for one in segments),
        coefficient_bytes=0 if is_one_scan else 2 * _num_samples(components, height, width),
    )


def _correct(data: bytearray, segment: Segment, num_components: int) -> None:
    """Change what decoders would warn of, though it does not change the pixels."""
    marker, start, end = segment
    content = data[start + 4 : start + 15]
    if marker == APP0 and content[:5] == b"JFIF\0":
        data[start + 9] = 1  # the version
    elif marker == APP2 and content == b"ICC_PROFILE":
        data[start + 4] = 0  # decoders then skip it
    elif marker == APP14 and content[:5] == b"Adobe" and end - start >= 16 and num_components == 3:
        data[start + 15] = min(data[start + 15], 1)  # an unknown transform is YCbCr


def _num_samples(components: bytearray, height: int, width: int) -> int:
    """Return the number of values in an image's color planes, some of which are subsampled."""
    factors = [(one >> 4, one & 15) for one in components[1::3]]
    largest = max((x for x, _ in factors), default=1) * max((y for _, y in factors), default=1)
    return height * width * sum(x * y for x, y in factors) // max(1, largest)


def _orientation(data: bytearray, segments: list[Segment]) -> int:
    found = [
        data[start + 4 : end]
        for marker, start, end in segments
        if marker == APP1 and data[start + 4 : start + 10] == b"Exif\0\0"
    ]
    if not found:
        return UPRIGHT
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of corrupt EXIF
            exif.load(bytes(found[-1]))
            return read_orientation(exif)
    except Exception:  # any kind; broken EXIF does not make a broken image
        return UPRIGHT


def _is_harmless(warning: str, data: bytearray, header: JpegHeader, *, is_part: bool) -> bool:
    """Whether a file that gave this warning, its first one, holds all requested pixels.

    Args:
        is_part: Whether only the upper rows were decoded, so that the others are surplus.
    """
    surplus = SURPLUS.search(warning)
    count, marker = (int(surplus[1]), int(surplus[2], 16)) if surplus else (0, 0)
    if marker == EOI and (is_part or count <= MAX_SURPLUS):
        return True
    end = _end(data, header)
    if end is None:
        return False
    if marker == EOI:
        return len(set(data[max(0, end - count) : end])) == 1  # padding
    is_between_scans = marker not in NO_SEGMENT and count <= MAX_SURPLUS
    return is_between_scans or bool(HARMLESS.search(warning))


def _end(data: bytearray, header: JpegHeader) -> int | None:
    """Return the offset of the end mark; None if it is missing."""
    offset = header.scan_offset
    while found := MARKER.search(data, offset):
        if found[1] == b"\xd9":
            return found.start()
        offset = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return None
