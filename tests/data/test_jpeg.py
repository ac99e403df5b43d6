"""JPEG files with oddities that lose no pixel, and what is lost all the same."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.test_images import IMAGE, JPEGS, encoded
from virtex.data import pixels
from virtex.data.images import BadImageError, Box, decode_image, open_image

PLAIN, PROGRESSIVE = JPEGS["4:2:0"], JPEGS["progressive"]
DQT, DHT, SOS, EOI = b"\xff\xdb", b"\xff\xc4", b"\xff\xda", b"\xff\xd9"
WORDS = b"words of the camera"


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def inserted(jpeg: bytes, mark: bytes, extra: bytes, *, last: bool = False) -> bytes:
    """The file with bytes before the first or last mark."""
    offset = jpeg.rindex(mark) if last else jpeg.index(mark)
    return jpeg[:offset] + extra + jpeg[offset:]


def with_scan_parameters(jpeg: bytes, parameters: bytes) -> bytes:
    scan = jpeg.index(SOS)
    offset = scan + 5 + 2 * jpeg[scan + 4]
    return jpeg[:offset] + parameters + jpeg[offset + 3 :]


def multi_picture() -> bytes:
    file = io.BytesIO()
    IMAGE.save(file, "MPO", save_all=True, append_images=[IMAGE.rotate(90)], quality=85)
    return file.getvalue()


IN_HEADER = {
    "scan parameters 0 0 0": with_scan_parameters(PLAIN, b"\0\0\0"),
    "fill bytes": inserted(PLAIN, DQT, b"\xff\xff\xff"),
    "bytes between segments": inserted(PLAIN, DHT, b"ab\xff\0\0"),
    "bytes before the scan": inserted(PLAIN, SOS, bytes(70_000)),
    "restart mark between segments": inserted(PLAIN, DQT, b"\xff\xd3"),
    "JFIF of version 2": PLAIN.replace(b"JFIF\0\1", b"JFIF\0\2"),
    "unknown Adobe transform": inserted(PLAIN, DQT, segment(0xEE, b"Adobe" + bytes(6) + b"\x09")),
    "broken color profile": inserted(PLAIN, DQT, segment(0xE2, b"ICC_PROFILE\0\7\3" + bytes(99))),
    "megabytes of metadata": inserted(PLAIN, DQT, 50 * segment(0xE1, b"http:" + bytes(60_000))),
}
ODD = {
    **IN_HEADER,
    "bytes before the end": inserted(PLAIN, EOI, b"\1\2\3", last=True),
    "padding before the end": inserted(PLAIN, EOI, bytes(1000), last=True),
    "a trailer": PLAIN + b"SEFT" + bytes(200),
    "another image behind it": PLAIN + JPEGS["gray"],
    "a second picture": multi_picture(),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_jpeg_with_a_harmless_oddity_is_read_whole_and_in_part(kind: str) -> None:
    expected = decode_image(PLAIN)
    assert np.array_equal(decode_image(ODD[kind]), expected)
    part = open_image(ODD[kind]).decode(Box(10, 20, 30, 40))
    assert np.array_equal(part, expected[10:40, 20:60])


@pytest.mark.parametrize("mark", [DHT, SOS, EOI])
def test_a_few_bytes_between_scans_are_skipped(mark: bytes) -> None:
    odd = inserted(PROGRESSIVE, mark, b"abc", last=True)
    assert np.array_equal(decode_image(odd), decode_image(PROGRESSIVE))
    with pytest.raises(BadImageError):
        decode_image(odd[:-2])


@pytest.mark.parametrize("kind", IN_HEADER)
@pytest.mark.parametrize("end", [b"", EOI])
def test_an_oddity_does_not_hide_that_the_rest_is_missing(kind: str, end: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(IN_HEADER[kind][:-500] + end)


def test_many_bytes_before_the_end_are_pixels_that_were_not_understood() -> None:
    surplus = np.random.default_rng(0).integers(1, 255, 60).astype(np.uint8).tobytes()
    with pytest.raises(BadImageError, match="extraneous bytes"):
        decode_image(inserted(PLAIN, EOI, surplus, last=True))


@pytest.mark.parametrize("parameters", [b"\0\0\0", b"\0\x3f\0"])
def test_cmyk_with_oddities_is_read(parameters: bytes) -> None:
    plain = encoded(IMAGE.convert("CMYK"))
    odd = inserted(with_scan_parameters(plain, parameters), DQT, WORDS)
    assert np.array_equal(decode_image(odd), decode_image(plain))


def test_memory_is_bounded_by_the_requested_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_DECODED_BYTES", 150 * 203)
    whole, top = Box(0, 0, 150, 203), Box(0, 0, 20, 203)
    for box, min_size in ((top, None), (whole, 37)):
        open_image(PLAIN).decode(box, min_size=min_size)
        with pytest.raises(BadImageError, match="make it smaller"):
            open_image(PROGRESSIVE).decode(box, min_size=min_size)
    with pytest.raises(BadImageError, match="make it smaller"):
        open_image(PLAIN).decode(whole)


def test_a_cmyk_jpeg_takes_no_more_memory_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("CMYK", (100, 100)), progressive=True)
    monkeypatch.setattr(pixels, "MAX_DECODED_BYTES", 75_000)
    with pytest.raises(BadImageError, match="make it smaller"):
        open_image(data)


def test_corrupt_exif_is_ignored_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\1"
    odd = inserted(PLAIN, DQT, segment(0xE1, exif))
    assert np.array_equal(decode_image(odd), decode_image(PLAIN))
    assert not recwarn.list
