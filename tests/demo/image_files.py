"""Image files for the tests of uploads."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(kind: str, *, height: int = 60, width: int = 80, exif: bytes = b"") -> bytes:
    """Return an image file of noise."""
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def png_that_claims(*, height: int, width: int) -> bytes:
    """Return a small file whose header claims more pixels than it holds."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)
