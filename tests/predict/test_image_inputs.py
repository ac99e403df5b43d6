"""What is taken for an image, and how it is decoded."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.predict.photo_run import write_images
from virtex.data.images import BadImageError, decode_image
from virtex.errors import DataError
from virtex.predict.image_inputs import as_example, as_list


def test_an_encoded_file_is_one_image_and_decoded_as_its_path_is(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1) / "photo0.png"
    content = path.read_bytes()
    assert as_list(content) == [content]
    found, expected = (decode_image(as_example(one).image) for one in (content, path))
    np.testing.assert_array_equal(found, expected)


def test_an_open_file_is_one_image_wherever_its_position_is(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1) / "photo0.png"
    memory = io.BytesIO(path.read_bytes())
    memory.seek(7)
    with path.open("rb") as opened:
        for file in (memory, opened, bytearray(memory.getvalue()), memoryview(memory.getvalue())):
            (image,) = as_list(file)
            np.testing.assert_array_equal(decode_image(as_example(image).image), decode_image(path))
            assert len(as_list([file, file])) == 2


def test_an_open_file_that_gives_no_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="binary mode"):
        as_example(io.StringIO("photo.jpg"))
    closed = io.BytesIO(b"")
    closed.close()
    with pytest.raises(BadImageError, match="closed file"):
        as_example(closed)


def test_a_pil_image_that_cannot_be_decoded_is_bad(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1) / "photo0.png"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadImageError, match="a PIL image"):
        as_example(Image.open(path))
    with pytest.raises(BadImageError, match="no fixed range"):
        as_example(Image.new("F", (8, 8)))


def test_a_pil_image_whose_metadata_cannot_be_read_is_bad(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1) / "photo0.png"
    content = path.read_bytes()
    text = b"k\0\0" + zlib.compress(bytes(2_000_000))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    path.write_bytes(
        content[:-12] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + content[-12:]
    )
    with pytest.raises(BadImageError, match="a PIL image: Decompressed data too large"):
        as_example(Image.open(path))
    decode_image(path)


@pytest.mark.parametrize("nothing", [None, 3])
def test_what_is_no_image_at_all_is_refused(nothing: object) -> None:
    with pytest.raises(DataError, match="is no image, and no list of images"):
        as_list(nothing)
    with pytest.raises(DataError, match="Allowed are paths"):
        as_example(nothing)


def test_a_web_address_is_no_path() -> None:
    with pytest.raises(DataError, match="is a web address"):
        as_example("https://example.com/a.jpg")
