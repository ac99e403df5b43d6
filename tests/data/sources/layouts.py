"""Small data sets written to disk, for the tests of sources; and where the real ones lie."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from PIL import Image

from tests.real_data import real
from virtex.data.example import Source
from virtex.errors import DataError

ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))
"""Lone surrogates too: JSON may hold them, and names of files that are not UTF-8."""


def real_data(name: str) -> Path:
    """A folder of real data; skips the test where it is absent."""
    return real(f"data/{name}")


def jpeg(value: int = 0) -> bytes:
    """Return a small gray image of the given value."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (value % 256,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message_of(build: Any, *args: Any, **options: Any) -> str:
    """What the DataError says that building a source raises."""
    with pytest.raises(DataError) as raised:
        build(*args, **options)
    return str(raised.value)


def contents(source: Source) -> dict[str, tuple[str, ...]]:
    """Captions by image id."""
    return {example.image_id: example.captions for example in source}


def write_tar(path: Path, files: dict[str, bytes | str]) -> Path:
    """Write a tar shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def coco_documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """Captions and instances of three images; the last one has no objects."""
    images = [{"id": id_, "file_name": f"{id_:03d}.jpg"} for id_ in (7, 3, 5)]
    captions = [
        {"id": 1, "image_id": 3, "caption": "a cat"},
        {"id": 2, "image_id": 7, "caption": "two dogs"},
        {"id": 3, "image_id": 3, "caption": "a cat sleeps"},
        {"id": 4, "image_id": 5, "caption": "an empty field"},
    ]
    square, triangle = [0, 0, 4, 0, 4, 4, 0, 4], [1.5, 1, 3, 1, 3, 2.25]
    crowd = {"size": [6, 8], "counts": [3, 4, 41]}
    objects = [
        _object(10, 3, 18, [1, 2, 3, 3], [square, triangle]),
        _object(11, 7, 2, [0, 0, 4, 4], [triangle]),
        _object(12, 7, 18, [0, 0, 8, 6], crowd, crowd=1),
        _object(13, 3, 2, [0.5, 0, 2, 2], [square]),
    ]
    categories = [{"id": 18, "name": "bicycle"}, {"id": 2, "name": "dog"}]
    return (
        {"images": images, "annotations": captions},
        {"images": images, "annotations": objects, "categories": categories},
    )


def write_coco(root: Path, split: str = "train2017") -> Path:
    """Write `coco_documents` and their images."""
    captions, instances = coco_documents()
    write(root / "annotations" / f"captions_{split}.json", json.dumps(captions))
    write(root / "annotations" / f"instances_{split}.json", json.dumps(instances))
    for image in captions["images"]:
        write(root / split / image["file_name"], jpeg(image["id"]))
    return root


def _object(
    id_: int, image_id: int, category: int, bbox: list[float], mask: Any, crowd: int = 0
) -> dict[str, Any]:
    return {
        "id": id_,
        "image_id": image_id,
        "category_id": category,
        "bbox": bbox,
        "segmentation": mask,
        "iscrowd": crowd,
    }
