"""VOC's annotation files: the objects of each image, in XML."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, absent_files, quoted
from virtex.data.packed import starts_of

CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_PIXEL = 1e6
"""No box lies this far out."""


class VocObject(NamedTuple):
    """One object of an annotation file."""

    name: str
    box: tuple[float, float, float, float]
    """Corners as VOC counts them: from 1, the last pixel included."""
    is_difficult: bool


class Objects(NamedTuple):
    """All objects (M) of all images (N), ordered by image."""

    boxes: NDArray[np.float32]
    """(M, 4) corners in pixels from 0; a box ends where its last pixel does."""
    labels: NDArray[np.int32]
    """(M,)"""
    is_difficult: NDArray[np.bool_]
    """(M,)"""
    starts: NDArray[np.int64]
    """(N + 1,) the object that each image starts with."""

    def of(self, index: int) -> "Objects":
        """The objects of one image."""
        first, end = self.starts[index : index + 2].tolist()
        return Objects(
            boxes=self.boxes[first:end],
            labels=self.labels[first:end],
            is_difficult=self.is_difficult[first:end],
            starts=np.array([0, end - first]),
        )


def read_objects(
    folder: Path, image_ids: Sequence[str], categories: Sequence[str], problems: Problems
) -> Objects:
    """The objects of all images, from one XML file an image."""
    names = [f"{image_id}.xml" for image_id in image_ids]
    absent = absent_files(folder, names)
    problems.add_all("annotation files missing", absent, f"Unpack them into {folder}.")
    per_image = [] if absent else _parse_all(folder, names, problems)
    objects = [one for its_objects in per_image for one in its_objects]
    label_of = {name: label for label, name in enumerate(categories)}
    unknown = sorted({one.name for one in objects} - label_of.keys())
    remedy = "Add their files to ImageSets/Main or remove the objects."
    problems.add_all("classes of objects that have no file in ImageSets/Main", unknown, remedy)
    boxes = np.asarray([one.box for one in objects], np.float32).reshape(-1, 4)
    boxes[:, :2] -= 1
    return Objects(
        boxes=boxes,
        labels=np.asarray([label_of.get(one.name, -1) for one in objects], np.int32),
        is_difficult=np.asarray([one.is_difficult for one in objects], np.bool_),
        starts=starts_of([len(its_objects) for its_objects in per_image]),
    )


def parse_annotation(data: bytes) -> list[VocObject]:
    """The objects that an annotation file lists.

    Raises:
        ValueError, ElementTree.ParseError: What is wrong with the file.
    """
    parser = ElementTree.XMLParser(target=_NoDoctype())
    parser.feed(data)
    return [_parse_object(element) for element in parser.close().findall("object")]


def _parse_all(folder: Path, names: Sequence[str], problems: Problems) -> list[list[VocObject]]:
    """The objects of each file; none of a file that is broken."""
    per_image: list[list[VocObject]] = []
    broken = []
    for name in names:
        try:
            per_image.append(parse_annotation((folder / name).read_bytes()))
        except (ValueError, OSError, ElementTree.ParseError) as error:
            per_image.append([])
            broken.append(f"{name}: {error}")
    problems.add_all("annotation files that are broken", broken, "Unpack them again.")
    return per_image


def _parse_object(element: ElementTree.Element) -> VocObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a name")
    texts = [element.findtext(f"bndbox/{corner}") for corner in CORNERS]
    left, top, right, bottom = (float(text or "nan") for text in texts)
    furthest = max(map(abs, (left, top, right, bottom)))
    if math.isnan(left + top + right + bottom) or furthest > MAX_PIXEL:
        raise ValueError(f"a {quoted(name)} whose corners are {quoted(texts)}")
    if right < left or bottom < top:
        raise ValueError(f"a {quoted(name)} whose box is turned inside out: {quoted(texts)}")
    is_difficult = (element.findtext("difficult") or "0").strip() != "0"
    return VocObject(name, (left, top, right, bottom), is_difficult)


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree from XML that declares nothing: entities could eat all memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("a document type declaration, which VOC's files never have")
