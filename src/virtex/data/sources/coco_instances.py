"""COCO's instances: classes, boxes and masks of all objects in flat arrays."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import quoted
from virtex.data.example import Example
from virtex.data.packed import starts_of
from virtex.data.sources.bad_objects import (
    MAX_PIXEL,
    box_faults,
    dropped_identity,
    find_good_objects,
    known_size,
)
from virtex.data.sources.coco_file import CocoFile, Row, id_text, numbers_in
from virtex.data.sources.coco_images import read_sizes
from virtex.data.sources.coco_masks import Masks, read_masks
from virtex.data.sources.label_lists import LabelLists
from virtex.errors import listing

log = logging.getLogger("virtex")

IS_CROWD = frozenset({0, 1, "0", "1"})
WHOLE_NUMBER = re.compile("-?[0-9]{1,4000}")
Rows = Sequence[tuple[int, Row]]
"""Annotations, each with the index of its image."""


@dataclass(frozen=True, eq=False)
class Instances:
    """All objects (M) of all images (N), ordered by image."""

    categories: tuple[str, ...]
    boxes: NDArray[np.float32]
    """Corners (M, 4)."""
    labels: NDArray[np.int32]
    """Indices into `categories`, (M,)."""
    crowd: NDArray[np.bool_]
    starts: NDArray[np.int64]
    """Index of each image's first object, and the end, (N + 1,)."""
    areas: NDArray[np.float32] | None
    """Areas in pixels (M,); None if the file has none."""
    masks: Masks | None
    image_labels: LabelLists
    """The classes present in each image."""
    image_sizes: NDArray[np.float64]
    """Height and width of each image, NaN where the file has none, (N, 2)."""
    num_dropped: int = 0
    """Number of bad objects that were dropped."""

    def __len__(self) -> int:
        return len(self.labels)

    def add_to(self, example: Example, index: int) -> Example:
        """Return the example with the objects of image `index`."""
        first, end = self.starts[index : index + 2].tolist()
        crowd = tuple(self.crowd[first:end].tolist())
        masks = () if self.masks is None else map(self.masks.__getitem__, range(first, end))
        return replace(
            example,
            labels=self.image_labels[index],
            boxes=self.boxes[first:end],
            box_labels=tuple(self.labels[first:end].tolist()),
            masks=tuple(masks),
            crowd=crowd if any(crowd) else (),
            areas=None if self.areas is None else self.areas[first:end],
            annotated_size=known_size(self.image_sizes[index]),
        )

    def identity(self) -> dict[str, str | int]:
        """Return the counts for a source's identity."""
        return {"instances": len(self), **dropped_identity(self.num_dropped)}

    def only(self, kept: NDArray[np.bool_]) -> "Instances":
        """Return the objects for which `kept` (M,) is true."""
        num_images = len(self.starts) - 1
        images, labels = self.images[kept], self.labels[kept]
        counts = np.bincount(images, minlength=num_images)
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=labels,
            crowd=self.crowd[kept],
            starts=starts_of(counts.tolist()),
            areas=None if self.areas is None else self.areas[kept],
            masks=None if self.masks is None else self.masks.only(kept),
            image_labels=LabelLists.of_pairs(images, labels, num_images=num_images),
            num_dropped=self.num_dropped + int((~kept).sum()),
        )

    @property
    def images(self) -> NDArray[np.int64]:
        """Index of each object's image, (M,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def read_instances(
    file: CocoFile,
    indices: dict[str, int],
    *,
    with_masks: bool,
    bad_object_limit: float,
    listed_by: str | None = None,
) -> Instances:
    """Return the objects in a file, and its categories in the order of their ids.

    Args:
        indices: Indices of the images by their ids.
        with_masks: Whether objects with a faulty mask count as bad; otherwise such masks are
            left out, and their objects stay.
        bad_object_limit: See `SourceConfig`.
        listed_by: Name of the file that lists the images, if it is another one.
    """
    categories = read_categories(file)
    rows = sorted(file.annotations(indices, listed_by=listed_by), key=lambda pair: pair[0])
    if not rows:
        file.add("no objects are listed for these images. Is it the right file?")
    images = np.asarray([index for index, _ in rows], np.int64)
    labels = np.asarray(read_labels(file, rows, categories), np.int32)
    boxes = np.asarray(_read_boxes(file, rows), np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    image_sizes = read_sizes(file, indices)
    sizes = image_sizes[images]
    instances = Instances(
        categories=tuple(categories.values()),
        boxes=boxes,
        labels=labels,
        crowd=_read_crowd(file, rows),
        starts=starts_of(np.bincount(images, minlength=len(indices)).tolist()),
        areas=_read_areas(file, rows),
        masks=read_masks(file, rows, sizes, limit=None if with_masks else bad_object_limit),
        image_labels=LabelLists.of_pairs(images, labels, num_images=len(indices)),
        image_sizes=image_sizes,
    )
    kept = find_good_objects(
        _faults(instances, sizes),
        lambda index: _name_of(rows[index][1]),
        subject=file.name,
        limit=bad_object_limit,
        problems=file.problems,
    )
    return instances if kept.all() else instances.only(kept)


def _faults(instances: Instances, image_sizes: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return each possible fault of an object, and which objects (M,) have it.

    Args:
        image_sizes: (M, 2) height and width of each object's image.
    """
    faults = box_faults(instances.boxes, image_sizes)
    if instances.masks is not None:
        faults |= instances.masks.faults
    if instances.areas is not None:
        faults['"area" of 0 or less'] = instances.areas <= 0
    return faults


def _name_of(row: Row) -> str:
    return f"annotation {row.get('id')} of image {row['image_id']}: {row.get('bbox')}"


def read_categories(file: CocoFile) -> dict[str, str]:
    """Return the names by id, in the order of the ids."""
    rows = category_rows(file)
    file.check_ids("category", [row["id"] for row in rows])
    return {id_text(row["id"]) or "": row["name"] for row in rows}


def category_rows(file: CocoFile) -> list[Row]:
    """Return the categories in the order of their ids: by number, or else by text."""
    rows = file.rows_with("categories", "name")
    ids = [id_text(row["id"]) or "" for row in rows]
    are_numbers = all(WHOLE_NUMBER.fullmatch(one) for one in ids)
    keys: list[Any] = [int(one) for one in ids] if are_numbers else ids
    return [rows[index] for index in sorted(range(len(rows)), key=keys.__getitem__)]


def read_labels(file: CocoFile, rows: Rows, categories: dict[str, str]) -> list[int]:
    """Return the label of each annotation: the index of its category, or 0 if it is unknown."""
    label_of = {category_id: label for label, category_id in enumerate(categories)}
    labels, unknown = [], []
    for _, row in rows:
        category = row.get("category_id")
        label = label_of.get(id_text(category) or "")
        labels.append(label or 0)
        if label is None:
            unknown.append(f"annotation {row.get('id')}: category_id {category}")
    remedy = "Add the category or remove the annotations."
    file.add_all('annotations of a category that is not under "categories"', unknown, remedy)
    return labels


def _read_boxes(file: CocoFile, rows: Rows) -> list[list[float]]:
    """Return x, y, width and height of each object; NaN if broken."""
    boxes, broken = [], []
    for _, row in rows:
        box = numbers_in(row.get("bbox"))
        if box is not None and is_box(box):
            boxes.append(box)
        else:
            boxes.append([math.nan] * 4)
            broken.append(f"annotation {row.get('id')}: {row.get('bbox')}")
    remedy = "It is [x, y, width, height] in pixels."
    file.add_all('annotations whose "bbox" is missing or broken', broken, remedy)
    return boxes


def _read_crowd(file: CocoFile, rows: Rows) -> NDArray[np.bool_]:
    """Return which objects (M,) are groups; those without "iscrowd" are none."""
    values = [row.get("iscrowd") or 0 for _, row in rows]
    names = [
        f"annotation {row.get('id')}: {value}"
        for value, (_, row) in zip(values, rows, strict=True)
        if not isinstance(value, int | float | str) or value not in IS_CROWD
    ]
    file.add_all('annotations whose "iscrowd" is not 0 or 1', names, "Correct it or leave it out.")
    return np.asarray([value not in (0, "0") for value in values], np.bool_)


def _read_areas(file: CocoFile, rows: Rows) -> NDArray[np.float32] | None:
    """Return the area of each object in pixels; None if the file has none, or not of all."""
    given = [row["area"] for _, row in rows if row.get("area") is not None]
    if not given:
        return None
    areas = [numbers_in([row.get("area")]) for _, row in rows]
    names = [
        quoted(f"annotation {row.get('id')}")
        for area, (_, row) in zip(areas, rows, strict=True)
        if area is None or area[0] > MAX_PIXEL**2
    ]
    if names:
        log.warning(
            '%s: "area" is not used, since it is missing or not a number in %s of %s annotations '
            "(%s). Objects count by the area of their mask, or else of their box.",
            file.name,
            f"{len(names):,}",
            f"{len(rows):,}",
            listing(names),
        )
        return None
    found = np.asarray([area[0] for area in areas if area is not None], np.float32)
    return found if found.any() else None


def is_box(numbers: list[float]) -> bool:
    """Return whether numbers are x, y, width and height in pixels."""
    return len(numbers) == 4 and max(map(abs, numbers)) < MAX_PIXEL and min(numbers[2:]) >= 0
