"""COCO's segmentations of all objects in flat arrays."""

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from virtex.data.packed import PackedStrings, starts_of
from virtex.data.sources.coco_file import CocoFile, Row

LEAST_AREA = 1e-6
"""Least area of a polygon in square pixels; less is a rounding error."""
CONTINUES = 0x20
"""Bit of a letter of compressed run lengths whose number continues in the next letter."""


@dataclass(frozen=True, eq=False)
class Masks:
    """COCO segmentations of M objects: polygons as numbers, run lengths as JSON."""

    coordinates: NDArray[np.float64]
    polygon_starts: NDArray[np.int64]
    """Offset of each polygon in `coordinates`, and the end."""
    object_starts: NDArray[np.int64]
    """Index of each object's first polygon, and the end, (M + 1,); run lengths have no polygon."""
    run_lengths: PackedStrings
    """Run lengths (M,), empty for an object of polygons."""
    without_area: NDArray[np.bool_]

    def __getitem__(self, index: int) -> Any:
        """Return the segmentation as in COCO's file."""
        if text := self.run_lengths[index]:
            return json.loads(text)
        first, end = self.object_starts[index : index + 2].tolist()
        bounds = self.polygon_starts[first : end + 1].tolist()
        return [self.coordinates[start:stop].tolist() for start, stop in pairwise(bounds)]

    def only(self, kept: NDArray[np.bool_]) -> "Masks":
        """Return the masks of the objects for which `kept` (M,) is true."""
        num_polygons, lengths = np.diff(self.object_starts), np.diff(self.polygon_starts)
        kept_polygons = np.repeat(kept, num_polygons)
        return Masks(
            coordinates=self.coordinates[np.repeat(kept_polygons, lengths)],
            polygon_starts=starts_of(lengths[kept_polygons].tolist()),
            object_starts=starts_of(num_polygons[kept].tolist()),
            run_lengths=PackedStrings(self.run_lengths[i] for i in np.flatnonzero(kept).tolist()),
            without_area=self.without_area[kept],
        )


def read_masks(file: CocoFile, rows: Sequence[tuple[int, Row]]) -> Masks | None:
    """Return the segmentations; None if no object has one."""
    if not any("segmentation" in row for _, row in rows):
        return None
    coordinates, polygon_starts, num_polygons = array("d"), [0], []
    run_lengths, blank, broken = [], [], []
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
        blank.append(is_run_lengths(mask) and is_blank(mask["counts"]))
    remedy = 'It is a list of polygons [x, y, x, y, ...], or {"size": [H, W], "counts": ...}.'
    file.add_all('annotations whose "segmentation" is missing or broken', broken, remedy)
    numbers, starts = np.asarray(coordinates), np.asarray(polygon_starts, np.int64)
    return Masks(
        coordinates=numbers,
        polygon_starts=starts,
        object_starts=starts_of(num_polygons),
        run_lengths=PackedStrings(run_lengths),
        without_area=np.asarray(blank, np.bool_)
        | _are_lines(polygon_areas(numbers, starts), np.asarray(num_polygons, np.int64)),
    )


def polygon_areas(
    coordinates: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the areas of P polygons by the shoelace formula; NaN where a float overflows.

    Args:
        coordinates: x, y, x, y, ... of all polygons; each has at least one point.
        starts: (P + 1,) offset of each in `coordinates`, and the end.
    """
    firsts, counts = starts[:-1] // 2, np.diff(starts) // 2
    if not len(firsts):
        return np.zeros(0)
    following = np.arange(1, len(coordinates) // 2 + 1)
    following[firsts + counts - 1] = firsts
    points = coordinates.reshape(-1, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        # Relative to the first point, since products of large coordinates would cancel.
        x, y = (points - np.repeat(points[firsts], counts, axis=0)).T
        crosses = x * y[following] - x[following] * y
        return np.abs(np.add.reduceat(crosses, firsts)) / 2


def _are_lines(areas: NDArray[np.float64], num_polygons: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which objects (M,) have polygons, but without any area."""
    owners = np.repeat(np.arange(len(num_polygons)), num_polygons)
    sums = np.bincount(owners, weights=areas, minlength=len(num_polygons))
    return (num_polygons > 0) & ~(sums > LEAST_AREA)


def is_blank(counts: Any) -> bool:
    """Whether run lengths, compressed or not, cover no pixel."""
    if isinstance(counts, list):
        return not any(counts[1::2])
    return sum(not (ord(letter) - ord("0")) & CONTINUES for letter in counts) <= 1


def is_numbers(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of finite numbers."""
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        return False
    try:
        return math.isfinite(sum(map(float, value)))
    except OverflowError:  # an integer that no float can hold
        return False


def is_polygons(mask: Any) -> TypeGuard[list[list[float]]]:
    """Whether a segmentation is a list of polygons."""
    if not isinstance(mask, list) or not mask:
        return False
    return all(is_numbers(polygon) and polygon and len(polygon) % 2 == 0 for polygon in mask)


def is_run_lengths(mask: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a segmentation is in COCO's run-length form."""
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), list | str):
        return False
    size = mask.get("size")
    return is_numbers(size) and len(size) == 2
