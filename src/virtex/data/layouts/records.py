"""Written images and their annotations: what the writers of all layouts share."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from virtex import files
from virtex.data.example import Example, Source
from virtex.data.images import decode_image
from virtex.data.sources.scenes.kinds import KINDS

JPEG_QUALITY = 90
CHUNK = 500
"""Number of images that one process writes at a time, and that a tar shard holds."""
Annotation = dict[str, Any]
_FIRST_NUMBER = {"train": 1, "val": 1_000_001}


@dataclass(frozen=True)
class Record:
    """One written image; the `image` of its example is empty."""

    number: int
    """Number of the image, from 1, and from 1,000,001 in the validation split."""
    file: str
    """Path under the root; empty in a shard."""
    width: int
    height: int
    example: Example


Records = dict[str, list[Record]]
"""Written images of each split."""


def write_images(
    root: Path,
    split: str,
    source: Source,
    indices: range,
    *,
    name_image: Callable[[str, int, Example, Sequence[str]], str],
) -> list[Record]:
    """Write a chunk of a source as JPEG files, at the paths that `name_image` gives."""
    records, folders = [], set()
    for index in indices:
        example, number = source[index], _FIRST_NUMBER[split] + index
        file = name_image(split, number, example, source.categories)
        record, data = encoded(example, number=number, file=file)
        path = root / file
        if path.parent not in folders:
            make_folder(path.parent)
            folders.add(path.parent)
        write_file(path, data)
        records.append(record)
    return records


def encoded(example: Example, *, number: int, file: str) -> tuple[Record, bytes]:
    """Return an example as a record and a JPEG file; a JPEG file stays as it is."""
    data = example.image.read_bytes() if isinstance(example.image, Path) else example.image
    if isinstance(data, bytes) and data[:3] == b"\xff\xd8\xff":
        width, height = Image.open(io.BytesIO(data)).size
    else:
        image = Image.fromarray(decode_image(data, name=example.location))
        width, height = image.size
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        data = buffer.getvalue()
    return Record(number, file, width, height, replace(example, image=b"")), data


def write_json(
    path: Path,
    *,
    images: list[Annotation],
    annotations: list[Annotation],
    categories: list[Annotation] | None = None,
    **info: object,
) -> None:
    """Write an annotation file without spaces, in the form of COCO.

    Args:
        annotations: Those without an id are numbered from 1.
        categories: None leaves the key out.
        info: What the file says of itself, beside its description.
    """
    document = {
        "info": {**info, "description": "scenes drawn by virtex"},
        "licenses": [],
        "images": images,
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations, start=1)],
    }
    if categories is not None:
        document["categories"] = categories
    make_folder(path.parent)
    write_file(path, json.dumps(document, separators=(",", ":")))


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DataError: It cannot be made.
    """
    with files.write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file in place, neither atomically nor durably.

    Nobody reads a layout before all of it is there, and it has so many files that it would be slow.

    Raises:
        DataError: The disk is full, or the folder cannot be written.
    """
    with files.write_errors(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def supercategory_of(category: str) -> str:
    """Return the family of a scene's kind, `object` for other categories."""
    return next((kind.family for kind in KINDS if kind.name == category), "object")


def described(categories: Sequence[str], *, first_id: int) -> list[Annotation]:
    """Return the categories as an annotation file lists them."""
    return [
        {"id": category_id, "name": name, "supercategory": supercategory_of(name)}
        for category_id, name in enumerate(categories, start=first_id)
    ]


def boxes_of(example: Example) -> NDArray[np.float32]:
    """Return the boxes (M, 4) of an example, none where it has no boxes."""
    return np.zeros((0, 4), np.float32) if example.boxes is None else example.boxes


def areas(example: Example) -> list[float]:
    """Return the area of each object in pixels: of its run-length mask, or else of its box."""
    boxes = boxes_of(example)
    sides = boxes[:, 2:] - boxes[:, :2]
    found = (sides[:, 0] * sides[:, 1]).tolist()
    for index, mask in enumerate(example.masks):
        if isinstance(mask, dict) and isinstance(mask["counts"], list):
            found[index] = float(sum(mask["counts"][1::2]))
    return found


def most_prominent(example: Example) -> int:
    """Return the label of the largest object, or the first label where there are no boxes."""
    if not example.box_labels:
        return example.labels[0]
    return example.box_labels[int(np.argmax(areas(example)))]
