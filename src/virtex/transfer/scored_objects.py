"""Objects of examples and of detections, as the metrics of detection take them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths

from virtex.data.example import Example, Source, Subset
from virtex.data.masks import compressed_mask
from virtex.errors import DataError
from virtex.models.region_heads import Detections
from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, RunLengths, encode_masks


def check_objects(source: Source, name: str) -> None:
    """Check that there are objects to detect.

    Raises:
        DataError: Every object is a crowd or marked difficult, or there are none.
    """
    for index in range(len(source)):
        if source.labels(index):
            example = source[index]
            none = (False,) * len(example.box_labels)
            marks = zip(example.crowd or none, example.difficult or none, strict=True)
            if not all(crowd or difficult for crowd, difficult in marks):
                return
    raise DataError(
        f"none of the {len(source):,} {name} images has an object to detect: there are none, or "
        "only crowds and difficult ones. Give annotations with objects."
    )


def with_objects(source: Source) -> Source:
    """Return the images with objects; the others would teach nothing but the background.

    Difficult objects count: they are trained on, although an image whose only objects of a class
    are difficult does not have the label of that class.
    """
    shown = [
        index
        for index in range(len(source))
        if source.labels(index) or any(source[index].difficult)
    ]
    return source if len(shown) == len(source) else Subset(source, shown)


def detected_objects(detections: Detections) -> DetectedObjects:
    """Return the detections in an image as arrays, with masks as run lengths."""
    masks = detections.masks
    return DetectedObjects(
        boxes=detections.boxes.float().cpu().numpy(),
        labels=detections.labels.cpu().numpy() - 1,
        scores=detections.scores.float().cpu().numpy(),
        masks=None if masks is None else encode_masks(masks.cpu().numpy()),
    )


def ground_truth_of(example: Example, size: tuple[int, int], *, with_masks: bool) -> GroundTruth:
    """Return the ground truth of an image of a height and width."""
    boxes = np.zeros((0, 4), np.float32) if example.boxes is None else example.boxes
    none = (False,) * len(boxes)
    masks = [compressed_mask(mask, *size) for mask in example.masks] if with_masks else None
    return GroundTruth(
        size=size,
        boxes=boxes,
        labels=np.asarray(example.box_labels, np.int64),
        areas=_areas(example, boxes, masks),
        crowd=np.asarray(example.crowd or none, np.bool_),
        difficult=np.asarray(example.difficult or none, np.bool_),
        masks=masks,
        absent_labels=example.absent_labels,
        incomplete_labels=example.incomplete_labels,
    )


def _areas(
    example: Example, boxes: NDArray[np.float32], masks: Sequence[RunLengths] | None
) -> NDArray[np.floating]:
    """Return areas (M,) of the annotations, or else of the masks, or else of the boxes."""
    if example.areas is not None:
        return example.areas
    if masks:
        return np.asarray([run_lengths.area(mask) for mask in masks], np.float64)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
