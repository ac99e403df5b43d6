"""PNG files with odd metadata, colors of all kinds, and the memory that an image may take."""

import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.test_images import IMAGE, encoded, texture
from virtex.data import pillow_images
from virtex.data.images import BadImageError, Box, decode_image, open_image

PLAIN = encoded(IMAGE, "PNG")
BOMB = zlib.compress(b"x" * 3_000_000)


def chunk(kind: bytes, content: bytes, *, is_intact: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (not is_intact)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(png: bytes, added: bytes) -> bytes:
    return png[:33] + added + png[33:]


METADATA = {
    "color profile": chunk(b"iCCP", b"profile\0\0" + BOMB),
    "packed text": chunk(b"zTXt", b"workflow\0\0" + BOMB),
    "packed unicode": chunk(b"iTXt", b"prompt\0\1\0\0\0" + BOMB),
    "text": chunk(b"tEXt", b"parameters\0" + b"y" * 2_000_000),
    "much text": 80 * chunk(b"zTXt", b"k\0\0" + zlib.compress(b"v" * 1_000_000)),
    "damaged text": chunk(b"tEXt", b"Software\0camera", is_intact=False),
    "damaged frames": chunk(b"acTL", bytes(8), is_intact=False),
    "a chunk of no known kind": chunk(b"quXz", b"1", is_intact=False),
}


@pytest.mark.parametrize("kind", METADATA)
def test_a_png_is_read_whatever_its_metadata(kind: str) -> None:
    odd = with_chunk(PLAIN, METADATA[kind])
    assert np.array_equal(decode_image(odd), np.array(IMAGE))
    with pytest.raises(BadImageError):
        decode_image(odd[: len(odd) // 2])


def test_damaged_pixels_are_bad() -> None:
    with pytest.raises(BadImageError):
        decode_image(with_chunk(PLAIN.replace(b"IDAT", b"IDAT\0", 1), METADATA["text"]))
    palette = encoded(IMAGE.convert("P"), "PNG")
    broken = bytearray(palette)
    broken[palette.index(b"PLTE") + 10] ^= 1
    with pytest.raises(BadImageError):
        decode_image(bytes(broken))


def test_orientation_and_transparency_outlive_the_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = IMAGE.convert("P")
    plain = encoded(image, "PNG", exif=exif.tobytes(), transparency=image.getpixel((0, 0)))
    assert np.array_equal(
        decode_image(with_chunk(plain, METADATA["packed text"])), decode_image(plain)
    )
    assert decode_image(plain).shape == (203, 150, 3)


def over_white(image: Image.Image, data: bytes) -> Image.Image:
    """The whole image at once; 16-bit gray is a gray image of 8 bits."""
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in ("LA", "RGBA"):
        return upright.convert("RGB")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 2, 5, 6, 8])
def test_a_part_read_in_bands_is_that_part_of_the_whole(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = texture(31, 47)[:, :, 0]
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or Image.fromarray(texture(31, 47)).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(gray))
    exif = Image.Exif()
    exif[0x0112] = orientation
    kind = "TIFF" if mode == "CMYK" else "PNG"
    data = encoded(image, kind, exif=exif.tobytes())
    monkeypatch.setattr(pillow_images, "BAND_PIXELS", 100)
    expected = np.asarray(over_white(image, data))
    assert np.array_equal(decode_image(data), expected)
    assert np.array_equal(open_image(data).decode(Box(3, 5, 20, 7)), expected[3:23, 5:12])


def test_colors_that_cannot_become_rgb_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image, mode: str) -> None:
        raise ValueError(f"conversion from {image.mode} to {mode} not supported")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(BadImageError, match="conversion from RGB to RGB not supported"):
        decode_image(PLAIN)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image, which is not read; convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"words", "not an image in a known format: JPEG, PNG"),
        (b"", "an empty file"),
    ],
)
def test_the_reason_names_formats_that_are_not_read(start: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_image(start + bytes(100 * bool(start)))


def webp_that_claims(side: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    bits = data.index(b"VP8L") + 9
    size = int.from_bytes(data[bits : bits + 4], "little") >> 28 << 28 | (side - 1) << 14 | side - 1
    data[bits : bits + 4] = size.to_bytes(4, "little")
    return bytes(data)


def png_that_claims(side: int) -> bytes:
    size = struct.pack(">II5B", side, side, 8, 2, 0, 0, 0)
    return PLAIN[:8] + chunk(b"IHDR", size) + PLAIN[33:]


@pytest.mark.parametrize("data", [webp_that_claims(13_000), png_that_claims(13_000)])
def test_an_image_that_would_take_gigabytes_is_refused_undecoded(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImageError, match=r"would take \d,\d+ MiB, more than 1,024 MiB"):
        open_image(data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB
    assert grown < 100_000


def test_an_image_takes_a_few_bytes_a_pixel(tmp_path: Path) -> None:
    """The raster, its RGB copy, and a band of rows."""
    image = Image.new("RGB", (4000, 4000))
    file = io.BytesIO()
    image.save(file, "PNG")
    del image
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode_image(file.getvalue()).shape == (4000, 4000, 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB
    assert grown < 16e6 * 9 / 1e3


def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    many = with_chunk(png_that_claims(12_000), METADATA["damaged text"])
    with pytest.raises(BadImageError):
        decode_image(many)
    assert capfd.readouterr() == ("", "")


def tiff(bits: int, photometric: int, pixels: bytes) -> bytes:
    """Return a gray TIFF of one row of four pixels."""
    tags = ((256, 4), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 122), (277, 1))
    tags += ((278, 1), (279, len(pixels)))
    rows = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return b"II" + struct.pack("<HIH", 42, 8, len(tags)) + rows + bytes(4) + pixels


@pytest.mark.parametrize(("bits", "levels"), [(8, [0, 64, 128, 255]), (16, [0, 64, 128, 255])])
def test_a_tiff_whose_zero_is_white_is_no_negative(bits: int, levels: list[int]) -> None:
    pixels = np.asarray(levels, f"<u{bits // 8}") << (bits - 8)
    for photometric, expected in ((1, levels), (0, [255 - level for level in levels])):
        found = decode_image(tiff(bits, photometric, pixels.tobytes()))
        assert found[0, :, 1].tolist() == expected


def png(depth: int, color: int, row: bytes, key: tuple[int, ...]) -> bytes:
    """Return a PNG of one row of two pixels, of which one color is transparent."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 2, 1, depth, color, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(key)}H", *key),
        b"IDAT": zlib.compress(b"\0" + row),
        b"IEND": b"",
    }
    return PLAIN[:8] + b"".join(chunk(kind, part) for kind, part in parts.items())


@pytest.mark.parametrize(
    ("depth", "color", "row", "key", "second"),
    [
        (1, 0, b"\x40", (0,), 255),
        (2, 0, b"\x60", (1,), 170),
        (4, 0, b"\x58", (5,), 136),
        (8, 0, b"\x05\x08", (5,), 8),
        (16, 0, b"\x05\x01\x05\x02", (0x501,), 5),
        (8, 2, b"\x05\x05\x05\x08\x08\x08", (5, 5, 5), 8),
        (16, 2, b"\x05\x01" * 3 + b"\x08\x01" * 3, (0x501,) * 3, 8),
    ],
)
def test_the_transparent_color_of_a_png_of_any_depth_is_white(
    depth: int, color: int, row: bytes, key: tuple[int, ...], second: int
) -> None:
    assert decode_image(png(depth, color, row, key))[0].tolist() == [[255] * 3, [second] * 3]


@pytest.mark.parametrize("levels", [b"P5\n3 1\n1000\n\0\0\1\xf4\3\xe8", b"P2 3 1 1000 0 500 1000"])
def test_a_gray_ppm_of_16_bits_has_the_range_of_its_header(levels: bytes) -> None:
    assert decode_image(levels)[0, :, 0].tolist() == [0, 128, 255]
