"""Average precision of boxes by the rules of VOC 2007.

Everingham et al., "The PASCAL VOC Challenge", IJCV 2010, section 4.2: the mean, over eleven
recalls, of the best precision at that recall or a higher one. A detection belongs to the object of
its class that it overlaps most; the first one of an object is a hit, any further one is wrong.

VOC counts pixels from 1 and the last one in, so a box is xmax - xmin + 1 wide. The corners here
begin at xmin - 1 and end at xmax, which makes that same width x2 - x1.

Departure: programs that pass detections through text files round their scores and corners.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, check_parallel

OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))
AT_50, AT_75 = OVERLAPS.index(0.5), OVERLAPS.index(0.75)
RECALLS = np.arange(0, 1.1, 0.1)
"""(11,) as the published programs step: 0.3 and some others lie a rounding error higher."""


def voc_scores(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects], *, num_classes: int
) -> dict[str, float]:
    """VOC2007's average precision; an object that is difficult or a crowd is no hit and no miss.

    Args:
        ground_truth: The objects of each image.
        detections: The detections in the same images.
        num_classes: Labels are below it.

    Returns:
        voc07_AP (the mean over overlaps from 0.5 to 0.95), voc07_AP50 and voc07_AP75, each the mean
        over the classes of which an object counts; nothing where there is none.

    Raises:
        ValueError: The two do not fit together.
    """
    check_parallel(ground_truth, detections, num_classes)
    lenient = np.concatenate([one.difficult | one.crowd for one in ground_truth])  # (M,)
    labels = np.concatenate([one.labels for one in ground_truth])[~lenient]
    counts = np.bincount(labels.astype(np.int64), minlength=num_classes)  # (K,)
    if not counts.any():
        return {}
    ranking = _rank(ground_truth, detections, lenient)
    per_class = [_areas(ranking.of(label), int(counts[label])) for label in np.flatnonzero(counts)]
    areas = np.mean(per_class, axis=0)  # (10,)
    return {
        "voc07_AP": float(areas.mean()),
        "voc07_AP50": float(areas[AT_50]),
        "voc07_AP75": float(areas[AT_75]),
    }


class _Ranking(NamedTuple):
    """Detections (D) of all images, the surest first, and the object that each overlaps most."""

    labels: NDArray[np.integer]
    overlaps: NDArray[np.float64]
    """(D,) 0 where an image has no object of the class."""
    objects: NDArray[np.int64]
    """(D,) which of all images' objects it is; any where it overlaps none."""
    lenient: NDArray[np.bool_]
    """(D,) whether a match with that object counts for nothing."""

    def of(self, label: np.intp) -> "_Ranking":
        """The detections of one class."""
        chosen = self.labels == label
        return _Ranking(*(values[chosen] for values in self))


def _rank(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[DetectedObjects],
    lenient: NDArray[np.bool_],
) -> _Ranking:
    best = [
        _best(truth, detected) for truth, detected in zip(ground_truth, detections, strict=True)
    ]
    starts = np.cumsum([0, *(len(truth.labels) for truth in ground_truth)])
    objects = np.concatenate([start + rows for start, (_, rows) in zip(starts, best, strict=False)])
    overlaps = np.concatenate([values for values, _ in best])
    labels = np.concatenate([detected.labels for detected in detections])
    order = np.argsort(
        -np.concatenate([detected.scores for detected in detections]), kind="stable"
    )  # (D,)
    objects = np.where(overlaps > 0, objects, 0)[order]
    return _Ranking(labels[order], overlaps[order], objects, lenient[objects])


def _best(
    truth: GroundTruth, detected: DetectedObjects
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(D,) the largest overlap of each detection with an object of its class, and which it is."""
    if not len(truth.labels):
        return np.zeros(len(detected.labels)), np.zeros(len(detected.labels), np.int64)
    same_class = detected.labels[:, None] == truth.labels  # (D, M)
    overlaps = np.where(same_class, _overlaps(detected.boxes, truth.boxes), 0)
    rows = overlaps.argmax(axis=1)
    return overlaps.max(axis=1), rows


def _overlaps(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union (D, M) of boxes (D, 4) and (M, 4); 0 for two without an area."""
    boxes, others = boxes[:, None].astype(np.float64), others.astype(np.float64)
    upper_left = np.maximum(boxes[..., :2], others[..., :2])
    lower_right = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = np.prod(np.maximum(lower_right - upper_left, 0), axis=-1)  # (D, M)
    areas, other_areas = (np.prod(one[..., 2:] - one[..., :2], axis=-1) for one in (boxes, others))
    union = areas + other_areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _areas(ranking: _Ranking, num_objects: int) -> list[float]:
    """The area at each of the ten overlaps; arguments as of `_area`."""
    return [_area(ranking, num_objects, overlap) for overlap in OVERLAPS]


def _area(ranking: _Ranking, num_objects: int, overlap: float) -> float:
    """The mean over eleven recalls of the best precision there or further on.

    Args:
        ranking: The detections of one class.
        num_objects: Those of the class that count.
        overlap: A match has more.
    """
    matched = ranking.overlaps > overlap  # (D,)
    counted = ~(matched & ranking.lenient)
    objects, matched = ranking.objects[counted], matched[counted]  # (C,)
    rows = np.flatnonzero(matched)
    _, first_of_object = np.unique(objects[rows], return_index=True)
    is_hit = np.zeros(len(objects), np.bool_)
    is_hit[rows[first_of_object]] = True
    hits = np.cumsum(is_hit)
    precision = hits / np.arange(1, len(hits) + 1)
    best_from = np.maximum.accumulate(np.append(precision, 0)[::-1])[::-1]  # (C + 1,)
    return float(best_from[np.searchsorted(hits / num_objects, RECALLS)].mean())
