"""VOC's annotation files, which hold the objects of each image in XML."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, quoted
from virtex.data.example import Example
from virtex.data.packed import starts_of
from virtex.data.sources.bad_objects import (
    MAX_PIXEL,
    box_faults,
    dropped_identity,
    find_good_objects,
    known_size,
)
from virtex.errors import listing
from virtex.files import read_regular

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """One object of an annotation file."""

    name: str
    box: tuple[float, float, float, float]
    """Corners in VOC's convention: from 1, including the last pixel."""
    is_difficult: bool


class VocAnnotation(NamedTuple):
    """One annotation file."""

    size: tuple[float, float]
    """Height and width of the image, NaN if the file lacks them or has zeros."""
    objects: list[VocObject]


EMPTY = VocAnnotation((math.nan, math.nan), [])


@dataclass(frozen=True, eq=False)
class VocObjects:
    """All objects (M) of all images (N), ordered by image."""

    boxes: NDArray[np.float32]
    """Corners in pixels from 0, excluding the lower and right ends, (M, 4)."""
    labels: NDArray[np.int32]
    is_difficult: NDArray[np.bool_]
    starts: NDArray[np.int64]
    """Index of each image's first object, and the end, (N + 1,)."""
    image_sizes: NDArray[np.float64]
    """Height and width of each image, NaN where its file has none, (N, 2)."""
    num_dropped: int
    """Number of bad objects that were dropped."""

    def __len__(self) -> int:
        return len(self.labels)

    def add_to(self, example: Example, index: int) -> Example:
        """Return the example with the objects of image `index`."""
        first, end = self.starts[index : index + 2].tolist()
        difficult = tuple(self.is_difficult[first:end].tolist())
        return replace(
            example,
            boxes=self.boxes[first:end],
            box_labels=tuple(self.labels[first:end].tolist()),
            difficult=difficult if any(difficult) else (),
            annotated_size=known_size(self.image_sizes[index]),
        )

    def identity(self) -> dict[str, str | int]:
        """Return the counts and digest for a source's identity."""
        digest = hashlib.sha256()
        for array in (self.boxes, self.labels, self.is_difficult, self.starts):
            digest.update(array.tobytes())
        return {
            "boxes": len(self),
            "boxes_sha256": digest.hexdigest(),
            **dropped_identity(self.num_dropped),
        }


def read_objects(
    files: Sequence[Path],
    categories: Sequence[str],
    problems: Problems,
    *,
    bad_object_limit: float,
) -> VocObjects:
    """Return the objects of all images, each from its XML file."""
    annotations = _parse_all(files, problems)
    objects = [one for annotation in annotations for one in annotation.objects]
    if not objects:
        problems.add("No objects are annotated. Unpack Annotations again.")
    label_of = {name: label for label, name in enumerate(categories)}
    unknown = sorted({one.name for one in objects} - label_of.keys())
    remedy = "Add their files to ImageSets/Main or remove the objects."
    problems.add_all("classes of objects that have no file in ImageSets/Main", unknown, remedy)
    boxes = np.asarray([one.box for one in objects], np.float32).reshape(-1, 4)
    boxes[:, :2] -= 1
    images = np.repeat(np.arange(len(files)), [len(one.objects) for one in annotations])
    image_sizes = np.asarray([one.size for one in annotations], np.float64).reshape(-1, 2)
    kept = find_good_objects(
        box_faults(boxes, image_sizes[images]),
        lambda index: f"{files[images[index]].name}: {objects[index].name} {objects[index].box}",
        subject="Annotations",
        limit=bad_object_limit,
        problems=problems,
    )
    return VocObjects(
        boxes=boxes[kept],
        labels=np.asarray([label_of.get(one.name, -1) for one in objects], np.int32)[kept],
        is_difficult=np.asarray([one.is_difficult for one in objects], np.bool_)[kept],
        starts=starts_of(np.bincount(images[kept], minlength=len(files)).tolist()),
        image_sizes=image_sizes,
        num_dropped=int((~kept).sum()),
    )


def parse_annotation(data: bytes) -> VocAnnotation:
    """Parse an annotation file; raise a ValueError or ParseError if it is broken."""
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(data)
        root = parser.close()
    except LookupError as error:  # an encoding that is unknown, or none of text
        raise ValueError(quoted(error)) from error
    if root.tag != "annotation":
        raise ValueError(f"a <{quoted(root.tag)}>, not an <annotation>")
    return VocAnnotation(_parse_size(root), [_parse_object(one) for one in root.findall("object")])


def _parse_all(files: Sequence[Path], problems: Problems) -> list[VocAnnotation]:
    """Return the content of each file, without objects if it is absent or broken."""
    annotations, absent, broken = [], [], []
    for path in files:
        annotations.append(EMPTY)
        try:
            annotations[-1] = parse_annotation(bytes(read_regular(path)))
        except FileNotFoundError:
            absent.append(path.name)
        except (ValueError, OSError, ElementTree.ParseError) as error:
            broken.append(f"{path.name}: {error}")
    folders = listing(sorted({str(path.parent) for path in files}))
    problems.add_all("annotation files missing", absent, f"Unpack them into {folders}.")
    problems.add_all(
        "annotation files that are broken", broken, "Correct them or unpack them again."
    )
    return annotations


def _parse_size(root: ElementTree.Element) -> tuple[float, float]:
    """Return the height and width of the image; NaN if there is no <size>, or one of 0 x 0."""
    if root.find("size") is None:
        return EMPTY.size
    texts = [root.findtext(f"size/{side}") for side in ("height", "width")]
    height, width = map(_number, texts)
    if height == width == 0:  # as tools write that do not open the image
        return EMPTY.size
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise ValueError(f"a <size> whose height and width are {quoted(texts)}")
    return height, width


def _number(text: str | None) -> float:
    """Return a number, NaN if it is missing; a ValueError if it is not written as XML has it."""
    if text and ("_" in text or not text.isascii()):  # which Python takes for numbers
        raise ValueError(f"a number {quoted(text)}")
    return float(text or "nan")


def _parse_object(element: ElementTree.Element) -> VocObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a name")
    texts = [element.findtext(f"bndbox/{corner}") for corner in CORNERS]
    left, top, right, bottom = map(_number, texts)
    largest = max(map(abs, (left, top, right, bottom)))
    if math.isnan(left + top + right + bottom) or largest > MAX_PIXEL:
        raise ValueError(f"a {quoted(name)} whose corners are {quoted(texts)}")
    if right < left or bottom < top:
        raise ValueError(f"a {quoted(name)} whose box has its corners exchanged: {quoted(texts)}")
    is_difficult = (element.findtext("difficult") or "0").strip() != "0"
    return VocObject(name, (left, top, right, bottom), is_difficult)


class _NoDoctype(ElementTree.TreeBuilder):
    """A builder that refuses declarations, since entities could exhaust the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("a document type declaration, which VOC's files never have")
