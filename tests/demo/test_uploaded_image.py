import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.demo.image_files import encoded, png_that_claims
from virtex.data.images import BadImageError
from virtex.demo.uploaded_image import KEPT_SIDE, data_uri, read_image, thumbnail


def test_a_small_image_is_read_unchanged_from_memory_or_a_file(tmp_path):
    path = tmp_path / "nameless"
    path.write_bytes(encoded("PNG"))
    with Image.open(path) as image:
        expected = np.asarray(image)
    for source in (path, encoded("PNG")):
        assert np.array_equal(read_image(source, min_side=100), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_image_is_reduced(kind):
    data = encoded(kind, height=300, width=3 * KEPT_SIDE)
    assert read_image(data, min_side=50).shape[1] <= KEPT_SIDE
    assert read_image(data, min_side=250).shape[0] >= 250


def test_an_image_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("JPEG", height=60, width=80, exif=exif.tobytes())
    assert read_image(data, min_side=100).shape == (80, 60, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"these are words", "not an image in a known format"),
        (b"", "an empty file"),
        (encoded("JPEG")[:-200], ""),
        (png_that_claims(height=60_000, width=60_000), "larger than 50 million pixels"),
        (png_that_claims(height=5001, width=10_000), "larger than 50 million pixels"),
    ],
    ids=["text", "nothing", "truncated", "bomb", "too large"],
)
def test_a_file_that_is_no_image_is_refused_with_the_reason(data, reason):
    with pytest.raises(BadImageError) as caught:
        read_image(data, min_side=100)
    assert reason in caught.value.reason


def test_a_data_uri_holds_a_jpeg_of_at_most_that_side(pixels):
    kind, data = data_uri(thumbnail(pixels, side=40), "JPEG").split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 30)
