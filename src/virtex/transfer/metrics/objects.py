"""What metrics of detection compare: the objects of an image, and those that were found in it."""

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
    """The annotated objects of one image; M of them.

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
    """(M,) pixels, as the annotations give them: they make an object small, medium or large."""
    crowd: NDArray[np.bool_]
    """(M,) a box around a group: any number of detections in it count for nothing."""
    difficult: NDArray[np.bool_]
    """(M,) neither a hit where it is found nor a miss where it is not."""
    masks: Sequence[RunLengths] | None = None
    """M, or None where there are boxes alone."""
    absent_labels: tuple[int, ...] = ()
    """Classes that the image is known not to show."""
    incomplete_labels: tuple[int, ...] = ()
    """Classes of which not every object is annotated."""

    def __post_init__(self) -> None:
        per_object = {"areas": self.areas, "crowd": self.crowd, "difficult": self.difficult}
        _raise(_object_problems(self, per_object, "ground truth"))


@dataclass(frozen=True, eq=False)
class DetectedObjects:
    """What a detector found in one image; D objects.

    Raises:
        ValueError: Arrays whose lengths differ, or values that are no boxes or scores.
    """

    boxes: NDArray[np.floating]
    """(D, 4) corners x1 y1 x2 y2 in pixels of the same image."""
    labels: NDArray[np.integer]
    """(D,) from 0."""
    scores: NDArray[np.floating]
    """(D,) higher where the detector is surer."""
    masks: Sequence[RunLengths] | None = None
    """D, or None where there are boxes alone."""

    def __post_init__(self) -> None:
        _raise(_object_problems(self, {"scores": self.scores}, "detections"))


def encode_masks(masks: NDArray[np.bool_]) -> list[RunLengths]:
    """Masks (D, H, W) as compressed run lengths."""
    return [run_lengths.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def compressed(mask: RunLengths) -> RunLengths:
    """The same mask with its run lengths compressed."""
    if isinstance(mask["counts"], list):
        return run_lengths.frPyObjects(dict(mask), *mask["size"])
    return mask


def check_parallel(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects], num_classes: int
) -> bool:
    """See that both speak of the same images and classes.

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
    _raise(_class_problems(ground_truth, detections, num_classes))
    if not _hold_masks(ground_truth, detections):
        return False
    _raise(_size_problems(ground_truth, detections))
    return True


def _class_problems(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects], num_classes: int
) -> Iterator[str]:
    for image, (truth, detected) in enumerate(zip(ground_truth, detections, strict=True)):
        told = (*truth.absent_labels, *truth.incomplete_labels)
        labels = np.unique(
            np.concatenate([truth.labels, detected.labels, np.array(told, np.int64)])
        )
        unknown = labels[(labels < 0) | (labels >= num_classes)].tolist()
        if unknown:
            yield f"image {image} has labels {unknown}; {num_classes} classes allow 0 to below that"


def _hold_masks(ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects]) -> bool:
    """Whether all objects have masks, and not none; images without objects do not tell."""
    sides: tuple[Sequence[GroundTruth | DetectedObjects], ...] = (ground_truth, detections)
    kinds = [{one.masks is not None for one in side if len(one.labels)} for side in sides]
    if len(kinds[0] | kinds[1]) > 1:
        texts = [", ".join("masks" if kind else "no masks" for kind in side) for side in kinds]
        raise ValueError(
            f"ground truth with {texts[0]} and detections with {texts[1]}: "
            "give masks of all objects on both sides, or of none"
        )
    return True in kinds[0] | kinds[1]


def _size_problems(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects]
) -> Iterator[str]:
    for image, (truth, detected) in enumerate(zip(ground_truth, detections, strict=True)):
        masks = (*(truth.masks or ()), *(detected.masks or ()))
        sizes = {tuple(mask["size"]) for mask in masks} - {tuple(truth.size)}
        if sizes:
            yield f"image {image} is {tuple(truth.size)} high and wide, masks of it {sorted(sizes)}"


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
