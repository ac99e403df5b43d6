"""Images as they are packed."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.drawn_images import photo
from virtex.data.example import Example
from virtex.data.images import BadImageError, decode_image, open_image
from virtex.data.jpeg import encode_jpeg
from virtex.pack.packed_image import PackedImage, pack_image, reduce


def file_of(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def packed(image: object, *, short_side: int = 20) -> PackedImage:
    return pack_image(Example("an image", image), short_side=short_side, quality=95)  # type: ignore[arg-type]


def smooth(height: int = 60, width: int = 90) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2, columns * 2, rows + columns], -1).astype(np.uint8)


def assert_alike(data: bytes, pixels: np.ndarray, *, levels: float = 3.0) -> None:
    found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
    assert np.abs(found - pixels.astype(int)).mean() < levels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_large_image_becomes_a_jpeg_of_the_short_side(kind):
    image = Image.fromarray(smooth())
    result = packed(file_of(image, kind))
    assert (result.suffix, result.size, result.original_size) == (".jpg", (30, 20), (90, 60))
    assert Image.open(io.BytesIO(result.data)).format == "JPEG"
    assert_alike(
        result.data, np.asarray(image.resize((30, 20), Image.Resampling.BICUBIC)), levels=6
    )


def test_reduction_is_that_of_pillow_without_aliasing():
    pixels = photo(7)  # is full of edges
    twin = Image.fromarray(pixels).resize((34, 20), Image.Resampling.BICUBIC)
    found = reduce(open_image(pixels), 20).astype(int)
    assert np.abs(found - np.asarray(twin, int)).max() <= 1
    stripes = np.zeros((400, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    found = decode_image(packed(stripes).data)
    assert abs(found.mean() - 127.5) < 2
    assert found.std() < 5


@pytest.mark.parametrize("short_side", [0, 60, 61, 500])
def test_a_jpeg_that_needs_no_reduction_stays_as_it_is(short_side):
    data = file_of(Image.fromarray(smooth()), quality=50)
    result = packed(data, short_side=short_side)
    assert (result.data, result.suffix, result.size) == (data, ".jpg", (90, 60))
    assert result.num_source_bytes == len(data)


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("WEBP", ".webp")])
def test_other_files_stay_as_they_are_only_if_nothing_is_reduced(kind, suffix):
    data = file_of(Image.fromarray(smooth()), kind)
    assert packed(data, short_side=0)[:2] == (data, suffix)
    small = packed(data, short_side=100)
    assert (small.suffix, small.size) == (".jpg", (90, 60))
    assert_alike(small.data, smooth())


def test_other_formats_and_pixels_become_a_jpeg_of_their_own_size():
    for image in (file_of(Image.fromarray(smooth()), "BMP"), smooth()):
        result = packed(image, short_side=0)
        assert (result.suffix, result.size) == (".jpg", (90, 60))
        assert_alike(result.data, smooth())
    assert packed(smooth()).num_source_bytes == 0


def test_a_turned_image_is_packed_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    result = packed(file_of(Image.fromarray(smooth()), exif=exif, quality=95))
    assert (result.size, result.original_size) == ((20, 30), (60, 90))
    upright = Image.fromarray(np.rot90(smooth(), -1)).resize((20, 30), Image.Resampling.BICUBIC)
    assert_alike(result.data, np.asarray(upright), levels=6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_color_mode_is_packed_as_training_reads_it(mode):
    if mode == "I;16":
        image = Image.fromarray(smooth()[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(smooth()).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(128)
    data = file_of(image, "TIFF" if mode == "CMYK" else "PNG")
    result = packed(data, short_side=100)
    assert result.data == encode_jpeg(decode_image(data), quality=95)


@pytest.mark.parametrize("short_side", [0, 20, 100])
def test_a_truncated_image_is_bad_also_if_its_file_would_stay(short_side):
    data = file_of(Image.fromarray(np.asarray(photo(7))))
    for broken in (data[:-200], data[:100], b"", b"no image"):
        with pytest.raises(BadImageError):
            packed(broken, short_side=short_side)


def test_a_missing_file_is_a_bad_image(tmp_path):
    with pytest.raises(BadImageError, match="No such file"):
        packed(tmp_path / "none.jpg")
