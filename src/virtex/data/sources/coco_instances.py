"""COCO's instances: classes, boxes and masks of all objects, in flat arrays."""

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Example
from virtex.data.packed import PackedStrings, starts_of
from virtex.data.sources.coco_file import CocoFile, Row

MAX_PIXEL = 1e6
"""No box lies this far out."""


@dataclass(frozen=True, eq=False)
class Masks:
    """COCO segmentations of M objects: polygons as numbers, run lengths as JSON."""

    coordinates: NDArray[np.float64]
    polygon_starts: NDArray[np.int64]
    """Where each polygon starts in `coordinates`."""
    object_starts: NDArray[np.int64]
    """(M + 1,) the polygon that each object starts with; an object of run lengths has none."""
    run_lengths: PackedStrings
    """(M,) empty for an object of polygons."""

    def __getitem__(self, index: int) -> Any:
        """The segmentation as COCO's file gives it."""
        if text := self.run_lengths[index]:
            return json.loads(text)
        first, end = self.object_starts[index : index + 2].tolist()
        bounds = self.polygon_starts[first : end + 1].tolist()
        return [self.coordinates[start:stop].tolist() for start, stop in pairwise(bounds)]


@dataclass(frozen=True, eq=False)
class Instances:
    """All objects (M) of all images (N), ordered by image."""

    categories: tuple[str, ...]
    boxes: NDArray[np.float32]
    """(M, 4) corners."""
    labels: NDArray[np.int32]
    """(M,) indices into `categories`."""
    crowd: NDArray[np.bool_]
    """(M,)"""
    starts: NDArray[np.int64]
    """(N + 1,) the object that each image starts with."""
    masks: Masks | None

    def __len__(self) -> int:
        return len(self.labels)

    def added_to(self, example: Example, index: int) -> Example:
        """The example, image number `index`, with its objects."""
        first, end = self.starts[index : index + 2].tolist()
        labels = tuple(self.labels[first:end].tolist())
        crowd = tuple(self.crowd[first:end].tolist())
        return replace(
            example,
            labels=tuple(sorted(set(labels))),
            boxes=self.boxes[first:end],
            box_labels=labels,
            masks=()
            if self.masks is None
            else tuple(map(self.masks.__getitem__, range(first, end))),
            crowd=crowd if any(crowd) else (),
        )


def read_instances(file: CocoFile, positions: dict[str, int]) -> Instances:
    """All objects in a file, and its categories in the order of their ids.

    Args:
        positions: Positions of the images by their ids.
    """
    categories = _read_categories(file)
    label_of = {category_id: label for label, category_id in enumerate(categories)}
    rows = sorted(file.annotations(positions), key=lambda pair: pair[0])
    boxes = np.asarray(_read_boxes(file, rows), np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    counts = np.bincount([position for position, _ in rows], minlength=len(positions))
    return Instances(
        categories=tuple(categories.values()),
        boxes=boxes,
        labels=np.asarray(_read_labels(file, rows, label_of), np.int32),
        crowd=np.asarray([bool(row.get("iscrowd")) for _, row in rows], np.bool_),
        starts=starts_of(counts.tolist()),
        masks=_read_masks(file, rows),
    )


def _read_categories(file: CocoFile) -> dict[int, str]:
    rows = file.rows_with("categories", {"id": int, "name": str})
    file.check_ids("category", [row["id"] for row in rows])
    return {row["id"]: row["name"] for row in sorted(rows, key=lambda row: row["id"])}


def _read_labels(
    file: CocoFile, rows: Sequence[tuple[int, Row]], label_of: dict[int, int]
) -> list[int]:
    labels, unknown = [], []
    for _, row in rows:
        category = row.get("category_id")
        label = label_of.get(category) if isinstance(category, int) else None
        labels.append(-1 if label is None else label)
        if label is None:
            unknown.append(f"annotation {row.get('id')}: category_id {category}")
    remedy = "Add the category or remove the annotations."
    file.add_all('annotations of a category that is not under "categories"', unknown, remedy)
    return labels


def _read_boxes(file: CocoFile, rows: Sequence[tuple[int, Row]]) -> list[list[float]]:
    """x, y, width, height of each object; zeros for those noted as broken."""
    boxes, broken = [], []
    for _, row in rows:
        box = row.get("bbox")
        if is_box(box):
            boxes.append(box)
        else:
            boxes.append([0.0] * 4)
            broken.append(f"annotation {row.get('id')}: {box}")
    remedy = "It is [x, y, width, height] in pixels."
    file.add_all('annotations whose "bbox" is missing or broken', broken, remedy)
    return boxes


def _read_masks(file: CocoFile, rows: Sequence[tuple[int, Row]]) -> Masks | None:
    """The segmentations; None where no object has one."""
    if not any("segmentation" in row for _, row in rows):
        return None
    coordinates, polygon_starts, num_polygons = array("d"), [0], []
    run_lengths, broken = [], []
    for _, row in rows:
        mask = row.get("segmentation")
        polygons: list[list[float]] = mask if is_polygons(mask) else []
        if not polygons and not is_run_lengths(mask):
            broken.append(f"annotation {row.get('id')}")
        for polygon in polygons:
            coordinates.extend(polygon)
            polygon_starts.append(len(coordinates))
        num_polygons.append(len(polygons))
        run_lengths.append("" if polygons else json.dumps(mask))
    remedy = 'It is a list of polygons [x, y, x, y, ...], or {"size": [H, W], "counts": ...}.'
    file.add_all('annotations whose "segmentation" is missing or broken', broken, remedy)
    return Masks(
        coordinates=np.asarray(coordinates),
        polygon_starts=np.asarray(polygon_starts, np.int64),
        object_starts=starts_of(num_polygons),
        run_lengths=PackedStrings(run_lengths),
    )


def is_numbers(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of finite numbers."""
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        return False
    try:
        return math.isfinite(sum(map(float, value)))
    except OverflowError:  # a whole number beyond what a float holds
        return False


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is x, y, width and height in pixels."""
    if not is_numbers(value) or len(value) != 4:
        return False
    return max(map(abs, value)) < MAX_PIXEL and min(value[2:]) >= 0


def is_polygons(mask: Any) -> TypeGuard[list[list[float]]]:
    """Whether a segmentation is a list of polygons."""
    if not isinstance(mask, list) or not mask:
        return False
    return all(is_numbers(polygon) and polygon and len(polygon) % 2 == 0 for polygon in mask)


def is_run_lengths(mask: Any) -> bool:
    """Whether a segmentation is in COCO's run-length form."""
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), list | str):
        return False
    size = mask.get("size")
    return is_numbers(size) and len(size) == 2
