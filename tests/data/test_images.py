"""Image files to RGB pixels, whole and in part."""

import io
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.real_data import real
from virtex.data.images import MAX_PIXELS, BadImageError, Box, decode_image, open_image
from virtex.errors import DataError


def texture(height: int, width: int) -> np.ndarray:
    """Return coarse colors with fine noise, without flat or repeated parts."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-20, 21, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


IMAGE = Image.fromarray(texture(150, 203))
JPEGS = {
    "4:2:0": encoded(IMAGE, quality=85),
    "4:2:2": encoded(IMAGE, quality=85, subsampling=1),
    "4:4:4": encoded(IMAGE, quality=95, subsampling=0),
    "progressive": encoded(IMAGE, progressive=True),
    "restarts": encoded(IMAGE, restart_marker_rows=1),
    "gray": encoded(IMAGE.convert("L")),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_decoded_as_pillow_does(kind: str) -> None:
    expected = np.asarray(Image.open(io.BytesIO(JPEGS[kind])).convert("RGB"))
    assert np.abs(decode_image(JPEGS[kind]).astype(int) - expected).max() <= 2


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(sorted(JPEGS)))
def test_a_part_of_a_jpeg_is_that_part_of_the_whole(data: st.DataObject, kind: str) -> None:
    height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 203))
    top, left = data.draw(st.integers(0, 150 - height)), data.draw(st.integers(0, 203 - width))
    part = open_image(JPEGS[kind]).decode(Box(top, left, height, width))
    whole = simplejpeg.decode_jpeg(JPEGS[kind])
    assert np.array_equal(part, whole[top : top + height, left : left + width])


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(sorted(JPEGS)), st.sampled_from([2, 4, 8]))
def test_a_reduced_part_is_that_part_of_the_reduced_whole(
    data: st.DataObject, kind: str, reduction: int
) -> None:
    height, width = data.draw(st.integers(16, 150)), data.draw(st.integers(16, 203))
    top, left = data.draw(st.integers(0, 150 - height)), data.draw(st.integers(0, 203 - width))
    min_size = max(min(height, width) // reduction, min(height, width) // (2 * reduction) + 1)
    part = open_image(JPEGS[kind]).decode(Box(top, left, height, width), min_size=min_size)
    rows, columns = -(-150 // reduction), -(-203 // reduction)
    whole = simplejpeg.decode_jpeg(JPEGS[kind], min_height=rows, min_width=columns)
    top, left, height, width = (side // reduction for side in (top, left, height, width))
    assert np.array_equal(part, whole[top : top + height, left : left + width])


def test_one_image_gives_several_parts() -> None:
    image = open_image(JPEGS["4:2:0"])
    image.decode(Box(0, 0, 10, 10))
    whole = image.decode(Box(0, 0, 150, 203))
    assert np.array_equal(whole, simplejpeg.decode_jpeg(JPEGS["4:2:0"]))


def test_a_part_stays_as_large_as_requested() -> None:
    image = open_image(JPEGS["4:4:4"])
    box = Box(10, 20, 100, 120)
    assert image.decode(box, min_size=51).shape == (100, 120, 3)
    assert image.decode(box, min_size=50).shape == (50, 60, 3)
    assert image.decode(box, min_size=20).shape == (25, 30, 3)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("box", [Box(0, 0, 20, 20), Box(0, 0, 150, 203)], ids=["top", "whole"])
def test_a_jpeg_cut_off_anywhere_is_bad(kind: str, box: Box) -> None:
    whole = JPEGS[kind]
    ends = {*range(0, 700, 13), *range(700, len(whole), 211), *range(len(whole) - 4, len(whole))}
    for end in ends:
        with pytest.raises(BadImageError):
            open_image(whole[:end]).decode(box)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_cut_off_are_bad(kind: str) -> None:
    whole = encoded(IMAGE, kind)
    for end in range(0, len(whole) - 16, len(whole) // 50):
        with pytest.raises(BadImageError):
            decode_image(whole[:end])


def test_overwritten_pixels_are_bad_and_the_rows_above_them_are_not() -> None:
    broken = bytearray(JPEGS["4:4:4"])
    middle = len(broken) // 2
    broken[middle : middle + 512] = bytes(512)
    with pytest.raises(BadImageError):
        decode_image(bytes(broken))
    assert open_image(bytes(broken)).decode(Box(0, 0, 30, 100)).shape == (30, 100, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"<svg></svg>", bytes(500)])
def test_bytes_that_are_no_image_are_bad(content: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(content)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_behind_a_jpegs_first_ones_are_bad(rest: bytes) -> None:
    with pytest.raises(BadImageError):
        decode_image(b"\xff\xd8\xff" + rest)


def test_a_bad_image_is_a_data_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(JPEGS["4:2:0"][:2000])
    with pytest.raises(DataError, match=r"broken\.jpg: Premature end"):
        decode_image(path)
    with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
        decode_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="shard 3: "):
        decode_image(b"", name="shard 3")


def test_a_bad_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImageError("a.jpg", "empty")))
    assert (error.location, error.reason) == ("a.jpg", "empty")


def test_a_jpeg_that_claims_too_many_pixels_is_refused_undecoded() -> None:
    bomb = bytearray(JPEGS["4:2:0"])
    offset = bomb.index(b"\xff\xc0") + 5
    bomb[offset : offset + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(BadImageError, match="65535 x 65535"):
        open_image(bytes(bomb))


def with_more_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive file whose last scan, with its table, comes `count` times more."""
    last = jpeg.rfind(b"\xff\xc4", 0, jpeg.rfind(b"\xff\xda"))
    return jpeg[:-2] + count * jpeg[last:-2] + jpeg[-2:]


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_of_many_scans_is_refused_undecoded(mode: str) -> None:
    few = encoded(Image.new(mode, (64, 48)), progressive=True)
    decode_image(few)
    bomb = with_more_scans(few, 1000)
    end = 4 + int.from_bytes(bomb[4:6], "big")  # of the first segment
    hidden = bomb[:end] + b"\0" + bomb[end:]  # a byte too much, which decoders skip
    for file in (bomb, hidden):
        with pytest.raises(BadImageError, match="more than 100 scans"):
            open_image(file)


def test_bytes_that_only_look_like_scans_are_allowed() -> None:
    few, noise = encoded(Image.new("RGB", (64, 48)), progressive=True), b"\xff\xda" * 1000
    comment = b"\xff\xfe" + (2 + len(noise)).to_bytes(2, "big") + noise
    assert np.array_equal(decode_image(few[:2] + comment + few[2:] + noise), decode_image(few))


def test_a_png_that_claims_too_many_pixels_is_refused_undecoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    bomb = encoded(Image.new("1", (side, side)), "PNG")
    with pytest.raises(BadImageError, match="pixels"):
        decode_image(bomb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_whole_and_part(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(IMAGE, exif=exif.tobytes(), quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = open_image(data)
    assert (image.height, image.width) == expected.shape[:2]
    assert np.abs(decode_image(data).astype(int) - expected).max() <= 2
    part = image.decode(Box(30, 40, 50, 60)).astype(int)
    assert np.abs(part - expected[30:80, 40:100]).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_files_keep_their_pixels(kind: str) -> None:
    assert np.array_equal(decode_image(encoded(IMAGE, kind, lossless=True)), np.array(IMAGE))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_gray_and_palette_become_rgb(mode: str) -> None:
    image = IMAGE.convert(mode)
    assert np.array_equal(decode_image(encoded(image, "PNG")), np.array(image.convert("RGB")))


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (20, 10), (0, 255, 255, 0))
    red = decode_image(encoded(image, quality=95))
    assert red.shape == (10, 20, 3)
    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 3


def test_sixteen_bit_gray_keeps_its_upper_eight_bits() -> None:
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = decode_image(encoded(Image.fromarray(levels), "PNG"))
    assert np.array_equal(pixels, np.repeat((levels >> 8)[:, :, None], 3, 2))


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((0, 0), (10, 20, 30, 255))
    pixels = decode_image(encoded(image, "PNG"))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert (pixels[1:] == 255).all()


def test_float_pixels_are_bad_since_their_range_is_unknown() -> None:
    with pytest.raises(BadImageError, match="no fixed range"):
        decode_image(encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"))


def test_decoded_pixels_pass_through() -> None:
    pixels = texture(9, 12)
    assert np.array_equal(decode_image(pixels), pixels)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3))]
)
def test_arrays_that_are_no_rgb_pixels_are_bad(pixels: np.ndarray) -> None:
    with pytest.raises(BadImageError, match="uint8"):
        decode_image(pixels)


def test_real_photos_are_decoded_as_pillow_does() -> None:
    for path in sorted(real("data/coco_mini").rglob("*.jpg"))[:12]:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        assert np.abs(decode_image(path).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_with_too_thin_a_side_is_bad(kind: str) -> None:
    with pytest.raises(BadImageError, match="one side is more than 200 times the other"):
        decode_image(encoded(Image.new("RGB", (2010, 10)), kind))
    assert decode_image(encoded(Image.new("RGB", (2000, 10)), kind)).shape == (10, 2000, 3)


def test_an_image_is_not_bad_because_no_more_files_can_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(path)
    decode_image(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            decode_image(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
