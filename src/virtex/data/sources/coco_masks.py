"""COCO's segmentations of all objects in flat arrays."""

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from virtex.data.packed import PackedStrings, starts_of
from virtex.data.segmentations import (
    MAX_OUTLINE,
    BadMaskError,
    is_numbers,
    run_lengths_in,
    size_of,
)
from virtex.data.sources.bad_objects import MAX_PIXEL
from virtex.data.sources.coco_file import CocoFile, Row

LEAST_AREA = 1e-6
"""Least area of a polygon in square pixels; less is a rounding error."""
REMEDY = (
    'It is a list of polygons [x, y, x, y, ...], or {"size": [H, W], "counts": ...}. Correct or '
    "remove them, or learn boxes alone (masks: false)."
)


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
    sizes: NDArray[np.float64]
    """Height and width that run lengths have, NaN for polygons, (M, 2)."""
    num_pixels: NDArray[np.int64]
    """Pixels that run lengths cover, -1 for polygons, (M,)."""
    faults: dict[str, NDArray[np.bool_]]
    """Each possible fault of a mask, and which masks (M,) have it."""

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
            sizes=self.sizes[kept],
            num_pixels=self.num_pixels[kept],
            faults={fault: mask[kept] for fault, mask in self.faults.items()},
        )


def read_masks(
    file: CocoFile,
    rows: Sequence[tuple[int, Row]],
    image_sizes: NDArray[np.float64],
    *,
    limit: float | None,
) -> Masks | None:
    """Return the segmentations; None if no object has one, or they are not required and unusable.

    Args:
        image_sizes: (M, 2) height and width of each object's image, NaN if unknown.
        limit: Largest fraction of masks with faults, above which all are left out; by default each
            object must have a mask.
    """
    masks, broken = _gather(row for _, row in rows)
    if limit is None:
        names = [f"annotation {rows[index][1].get('id')}{why}" for index, why in broken.items()]
        file.add_all('annotations whose "segmentation" is missing or broken', names, REMEDY)
    if len(broken) == len(rows) or (limit is not None and broken):
        return None
    masks = replace(masks, faults=_faults(masks, image_sizes))
    is_bad = np.logical_or.reduce(list(masks.faults.values()))
    return None if limit is not None and is_bad.sum() > limit * len(is_bad) else masks


def _gather(rows: Iterable[Row]) -> tuple[Masks, dict[int, str]]:
    """Return the masks of all objects, and why those of some (by index) are missing or broken."""
    coordinates, polygon_starts, num_polygons = array("d"), [0], []
    run_lengths: list[str] = []
    sizes: list[tuple[float, float]] = []
    num_pixels: list[int] = []
    broken: dict[int, str] = {}
    for index, row in enumerate(rows):
        mask = row.get("segmentation")
        polygons: list[list[float]] = mask if is_polygons(mask) else []
        for polygon in polygons:
            coordinates.extend(polygon)
            polygon_starts.append(len(coordinates))
        num_polygons.append(len(polygons))
        text, size, covered = "", (math.nan, math.nan), -1
        if not polygons:
            try:
                text, size, covered = _packed(mask)
            except BadMaskError as error:
                broken[index] = f": {error}" if isinstance(mask, dict) else ""
        run_lengths.append(text)
        sizes.append(size)
        num_pixels.append(covered)
    masks = Masks(
        coordinates=np.asarray(coordinates),
        polygon_starts=np.asarray(polygon_starts, np.int64),
        object_starts=starts_of(num_polygons),
        run_lengths=PackedStrings(run_lengths),
        sizes=np.asarray(sizes, np.float64).reshape(-1, 2),
        num_pixels=np.asarray(num_pixels, np.int64),
        faults={},
    )
    return masks, broken


def _packed(mask: Any) -> tuple[str, tuple[float, float], int]:
    """Return run lengths as JSON, their height and width, and how many pixels they cover."""
    runs, size = run_lengths_in(mask), size_of(mask)
    return json.dumps({"size": size, "counts": mask["counts"]}), size, int(runs[1::2].sum())


def _faults(masks: Masks, image_sizes: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Return each possible fault of a mask, and which masks (M,) have it."""
    num_polygons = np.diff(masks.object_starts)
    owners = np.repeat(np.arange(len(num_polygons)), num_polygons)  # (P,)
    polygons = masks.coordinates, masks.polygon_starts
    are_far = _are_far(masks, image_sizes[owners])
    areas, lengths, num_far = (
        np.bincount(owners, weights=values, minlength=len(num_polygons))
        for values in (polygon_areas(*polygons), outlines(*polygons), are_far)
    )
    is_blank = np.where(num_polygons > 0, ~(areas > LEAST_AREA), masks.num_pixels == 0)
    differ = np.any(masks.sizes != image_sizes, axis=1)
    are_known = ~np.isnan(masks.sizes + image_sizes).any(1)
    return {
        "masks without area": is_blank,
        "masks of another size than their image": differ & are_known,
        "masks far outside their image": (num_far > 0) & ~is_blank,
        "masks with far too long an outline": (lengths > MAX_OUTLINE) & ~is_blank & (num_far == 0),
    }


def polygon_areas(
    coordinates: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the areas of P polygons by the shoelace formula; NaN where a float overflows.

    Args:
        coordinates: x, y, x, y, ... of all polygons; each has at least one point.
        starts: (P + 1,) offset of each in `coordinates`, and the end.
    """
    firsts, following = _following(starts)
    points = coordinates.reshape(-1, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        # Relative to the first point, since products of large coordinates would cancel.
        x, y = (points - np.repeat(points[firsts], np.diff(starts) // 2, axis=0)).T
        return np.abs(_sums(x * y[following] - x[following] * y, firsts)) / 2


def outlines(coordinates: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lengths of the outlines of P polygons, each edge by its longer side in pixels."""
    firsts, following = _following(starts)
    points = coordinates.reshape(-1, 2)
    with np.errstate(over="ignore"):
        return _sums(np.abs(points[following] - points).max(1, initial=0), firsts)


def _following(starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the index of each polygon's first point, (P,), and of each point's next one."""
    firsts, ends = starts[:-1] // 2, starts[1:] // 2
    following = np.arange(1, starts[-1] // 2 + 1)
    following[ends - 1] = firsts
    return firsts, following


def _sums(values: NDArray[np.float64], firsts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.add.reduceat(values, firsts) if len(firsts) else np.zeros(0)


def _are_far(masks: Masks, image_sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which polygons (P,) reach further beyond their image than it is long.

    Args:
        image_sizes: (P, 2) height and width of each polygon's image, NaN if unknown.
    """
    firsts, points = masks.polygon_starts[:-1] // 2, masks.coordinates.reshape(-1, 2)
    if not len(firsts):
        return np.zeros(0, np.bool_)
    limits = np.nan_to_num(image_sizes[:, ::-1], nan=MAX_PIXEL)
    low, high = (find.reduceat(points, firsts, axis=0) for find in (np.minimum, np.maximum))
    return np.any((low < -limits) | (high > 2 * limits), axis=1)


def is_polygons(mask: Any) -> TypeGuard[list[list[float]]]:
    """Return whether a segmentation is a list of polygons."""
    if not isinstance(mask, list) or not mask:
        return False
    return all(is_numbers(polygon) and polygon and len(polygon) % 2 == 0 for polygon in mask)
