"""Ground truth and detections of one image, as metrics of detection compare them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths

from virtex.errors import listing

RunLengths = Mapping[str, Any]
"""A mask as COCO writes it, {"size": [H, W], "counts": ...}, compressed or not."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The M annotated objects of one image.

    Raises:
        ValueError: Arrays whose lengths differ, or values that are no boxes.
    """

    size: tuple[int, int]
    """Height and width of the image in pixels."""
    boxes: NDArray[np.floating]
    """(M, 4) corners x1 y1 x2 y2 in pixels."""
    labels: NDArray[np.integer]
    """(M,) from 0."""
    areas: NDArray[np.floating]
    """(M,) annotated areas in pixels, which make an object small, medium or large."""
    crowd: NDArray[np.bool_]
    """(M,) whether the box surrounds a group; detections in a group are ignored."""
    difficult: NDArray[np.bool_]
    """(M,) whether the object is ignored: neither a hit if detected nor a miss if not."""
    masks: Sequence[RunLengths] | None = None
    """M masks, or None where there are boxes alone."""
    absent_labels: tuple[int, ...] = ()
    """Classes that the image is known not to show."""
    incomplete_labels: tuple[int, ...] = ()
    """Classes of which not every object is annotated."""

    def __post_init__(self) -> None:
        per_object = {"areas": self.areas, "crowd": self.crowd, "difficult": self.difficult}
        _raise(_object_problems(self, per_object, "ground truth"))


@dataclass(frozen=True, eq=False)
class DetectedObjects:
    """The D detections in one image.

    Raises:
        ValueError: Arrays whose lengths differ, or values that are no boxes or scores.
    """

    boxes: NDArray[np.floating]
    """(D, 4) corners x1 y1 x2 y2 in pixels of the same image."""
    labels: NDArray[np.integer]
    """(D,) from 0."""
    scores: NDArray[np.floating]
    """(D,) confidences; the order alone counts."""
    masks: Sequence[RunLengths] | None = None
    """D masks, or None where there are boxes alone."""

    def __post_init__(self) -> None:
        _raise(_object_problems(self, {"scores": self.scores}, "detections"))


def encode_masks(masks: NDArray[np.bool_]) -> list[RunLengths]:
    """Return masks (D, H, W) as compressed run lengths."""
    return [run_lengths.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def compressed(mask: RunLengths) -> RunLengths:
    """Return the same mask with its run lengths compressed."""
    if isinstance(mask["counts"], list):
        return run_lengths.frPyObjects(dict(mask), *mask["size"])
    return mask


def check_parallel(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects], num_classes: int
) -> bool:
    """Check that ground truth and detections are of the same images and classes.

    Returns:
        Whether they hold masks.

    Raises:
        ValueError: They do not fit together.
    """
    if len(ground_truth) != len(detections):
        raise ValueError(
            f"ground truth of {len(ground_truth)} images and detections of {len(detections)}: "
            "give one of each for every image"
        )
    if not ground_truth:
        raise ValueError("objects of no image: give those of one or more")
    pairs = list(zip(ground_truth, detections, strict=True))
    _raise(_class_problems(pairs, num_classes))
    if not _have_masks(ground_truth, detections):
        return False
    _raise(_size_problems(pairs))
    return True


def _class_problems(
    pairs: Sequence[tuple[GroundTruth, DetectedObjects]], num_classes: int
) -> Iterator[str]:
    for index, (truth, detected) in enumerate(pairs):
        labels = {*truth.labels.tolist(), *truth.absent_labels, *truth.incomplete_labels}
        labels |= set(detected.labels.tolist())
        unknown = sorted(label for label in labels if not 0 <= label < num_classes)
        if unknown:
            yield f"image {index} has labels {unknown}; {num_classes} classes allow 0 to below that"


def _have_masks(ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects]) -> bool:
    """Return whether the objects have masks: all of them, or none."""
    sides: tuple[Sequence[GroundTruth | DetectedObjects], ...] = (ground_truth, detections)
    kinds = [{one.masks is not None for one in side if len(one.labels)} for side in sides]
    if len(kinds[0] | kinds[1]) > 1:
        texts = [", ".join("masks" if kind else "no masks" for kind in side) for side in kinds]
        raise ValueError(
            f"ground truth with {texts[0]} and detections with {texts[1]}: "
            "give masks of all objects on both sides, or of none"
        )
    return True in kinds[0] | kinds[1]


def _size_problems(pairs: Sequence[tuple[GroundTruth, DetectedObjects]]) -> Iterator[str]:
    for index, (truth, detected) in enumerate(pairs):
        masks = (*(truth.masks or ()), *(detected.masks or ()))
        sizes = {tuple(mask["size"]) for mask in masks} - {tuple(truth.size)}
        if sizes:
            yield f"image {index} is {tuple(truth.size)} high and wide, its masks {sorted(sizes)}"


def _object_problems(
    objects: GroundTruth | DetectedObjects, per_object: dict[str, NDArray[Any]], name: str
) -> Iterator[str]:
    count = len(objects.labels)
    if objects.boxes.shape != (count, 4):
        yield f"{name}: {count} labels and boxes {objects.boxes.shape}; give boxes ({count}, 4)"
    elif (objects.boxes[:, 2:] < objects.boxes[:, :2]).any():
        yield f"{name}: boxes turned inside out; give corners x1 y1 x2 y2"
    if not np.isfinite(objects.boxes).all():
        yield f"{name}: boxes hold NaN or infinity"
    for field, values in per_object.items():
        if values.shape != (count,):
            yield f"{name}: {count} labels and {field} {values.shape}; give {field} ({count},)"
        if not np.isfinite(values).all():
            yield f"{name}: {field} hold NaN or infinity"
    if objects.masks is not None and len(objects.masks) != count:
        yield f"{name}: {count} labels and {len(objects.masks)} masks; give as many"


def _raise(problems: Iterator[str]) -> None:
    if texts := list(problems):
        raise ValueError(listing(texts))
