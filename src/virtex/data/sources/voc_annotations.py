"""VOC's annotation files: the objects of each image, in XML."""

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
from virtex.data.sources.bad_objects import box_faults, dropped_identity, find_good_objects
from virtex.errors import listing

CORNERS = ("xmin", "ymin", "xmax", "ymax")
MAX_PIXEL = 1e6
"""No box lies this far out."""


class VocObject(NamedTuple):
    """One object of an annotation file."""

    name: str
    box: tuple[float, float, float, float]
    """Corners as VOC counts them: from 1, the last pixel included."""
    is_difficult: bool


class VocAnnotation(NamedTuple):
    """One annotation file."""

    size: tuple[float, float]
    """Height and width of the image; NaN where the file does not say them."""
    objects: list[VocObject]


NOTHING = VocAnnotation((math.nan, math.nan), [])


@dataclass(frozen=True, eq=False)
class VocObjects:
    """All objects (M) of all images (N), ordered by image."""

    boxes: NDArray[np.float32]
    """(M, 4) corners in pixels from 0; a box ends where its last pixel does."""
    labels: NDArray[np.int32]
    """(M,)"""
    is_difficult: NDArray[np.bool_]
    """(M,)"""
    starts: NDArray[np.int64]
    """(N + 1,) the object that each image starts with."""
    num_dropped: int
    """Bad ones that are not among them."""

    def __len__(self) -> int:
        return len(self.labels)

    def added_to(self, example: Example, index: int) -> Example:
        """The example, image number `index`, with its objects."""
        first, end = self.starts[index : index + 2].tolist()
        difficult = tuple(self.is_difficult[first:end].tolist())
        return replace(
            example,
            boxes=self.boxes[first:end],
            box_labels=tuple(self.labels[first:end].tolist()),
            difficult=difficult if any(difficult) else (),
        )

    def identity(self) -> dict[str, str | int]:
        """What these objects are, for the record."""
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
    """The objects of all images, from one XML file an image.

    Args:
        bad_object_limit: Share of the objects that may be bad; those are dropped.
    """
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
    sizes = np.asarray([one.size for one in annotations]).reshape(-1, 2)[images]
    kept = find_good_objects(
        box_faults(boxes, sizes),
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
        num_dropped=int((~kept).sum()),
    )


def parse_annotation(data: bytes) -> VocAnnotation:
    """What an annotation file says.

    Raises:
        ValueError, ElementTree.ParseError: What is wrong with the file.
    """
    parser = ElementTree.XMLParser(target=_NoDoctype())
    parser.feed(data)
    root = parser.close()
    return VocAnnotation(_parse_size(root), [_parse_object(one) for one in root.findall("object")])


def _parse_all(files: Sequence[Path], problems: Problems) -> list[VocAnnotation]:
    """The content of each file; no objects for a file that is absent or broken."""
    annotations, absent, broken = [], [], []
    for path in files:
        annotations.append(NOTHING)
        try:
            annotations[-1] = parse_annotation(path.read_bytes())
        except FileNotFoundError:
            absent.append(path.name)
        except (ValueError, OSError, ElementTree.ParseError) as error:
            broken.append(f"{path.name}: {error}")
    folders = listing(sorted({str(path.parent) for path in files}))
    problems.add_all("annotation files missing", absent, f"Unpack them into {folders}.")
    problems.add_all("annotation files that are broken", broken, "Mend them or unpack them again.")
    return annotations


def _parse_size(root: ElementTree.Element) -> tuple[float, float]:
    """Height and width of the image; NaN where there is no <size>."""
    if root.find("size") is None:
        return NOTHING.size
    texts = [root.findtext(f"size/{side}") for side in ("height", "width")]
    height, width = (float(text or "nan") for text in texts)
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise ValueError(f"a <size> whose height and width are {quoted(texts)}")
    return height, width


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
