"""An image on disk and what is known about it: what the writers of all layouts pass on."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from virtex import files
from virtex.data.example import Example, Source
from virtex.data.images import decode_image

JPEG_QUALITY = 90
CHUNK = 500
"""Images that one process writes at a time; also the size of a tar shard."""
_FIRST_NUMBER = {"train": 1, "val": 1_000_001}


@dataclass(frozen=True)
class Record:
    """One written image; the `image` of its example is empty."""

    number: int
    """Counts from 1, and from 1,000,001 in the validation split."""
    file: str
    """Its path under the root; empty in a shard."""
    width: int
    height: int
    example: Example


def write_images(
    root: Path,
    split: str,
    source: Source,
    indices: range,
    *,
    name_image: Callable[[str, int, Example, Sequence[str]], str],
) -> list[Record]:
    """Write a chunk of a source as JPEG files, where `name_image` says."""
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
    """An example as a record and a JPEG file; a file that is JPEG already stays as it is."""
    image = example.image
    data = image.read_bytes() if isinstance(image, Path) else image
    if isinstance(data, bytes) and data[:3] == b"\xff\xd8\xff":
        width, height = Image.open(io.BytesIO(data)).size
    else:
        picture = Image.fromarray(decode_image(data, name=example.location))
        width, height = picture.size
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        data = buffer.getvalue()
    return Record(number, file, width, height, replace(example, image=b"")), data


def write_json(path: Path, document: Any) -> None:
    """Write a document without spaces."""
    make_folder(path.parent)
    write_file(path, json.dumps(document, separators=(",", ":")))


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        DataError: It cannot be made.
    """
    with files.telling(path):
        path.mkdir(parents=True, exist_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file in place: a layout is a new folder of very many, which nobody reads before all
    of it is there, so that atomic and durable writes would only be slow.

    Raises:
        DataError: The disk is full, or the folder cannot be written.
    """
    with files.telling(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def areas(example: Example) -> list[float]:
    """The area of each object in pixels: of its run-length mask, or else of its box."""
    boxes = np.zeros((0, 4)) if example.boxes is None else example.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    found = (sides[:, 0] * sides[:, 1]).tolist()
    for place, mask in enumerate(example.masks):
        if isinstance(mask, dict) and isinstance(mask["counts"], list):
            found[place] = float(sum(mask["counts"][1::2]))
    return found


def most_prominent(example: Example) -> int:
    """The label of the largest object, or the first label where there are no boxes."""
    if not example.box_labels:
        return example.labels[0]
    return example.box_labels[int(np.argmax(areas(example)))]
