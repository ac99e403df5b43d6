"""Average precision of boxes by the rules of VOC 2007.

Everingham et al., "The PASCAL VOC Challenge", IJCV 2010, section 4.2: the mean, over eleven
recalls, of the best precision at that recall or a higher one. A detection is matched to the object
of its class with the largest IoU. By descending score, the first detection matched to an object is
a hit and any further one a false positive.

VOC counts pixels from 1 and includes the last one, so a box is xmax - xmin + 1 wide. The corners
here are xmin - 1 and xmax, so that x2 - x1 is the same width.

Departure: programs that pass detections through text files round their scores and corners.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, check_parallel

IOUS = tuple(percent / 100 for percent in range(50, 100, 5))
AT_50, AT_75 = IOUS.index(0.5), IOUS.index(0.75)
RECALLS = np.arange(0, 1.1, 0.1)
"""(11,) recalls as the published programs step; 0.3 and some others are a rounding error higher."""


def voc_scores(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects], *, num_classes: int
) -> dict[str, float]:
    """Return VOC2007's average precision; objects that are difficult or a crowd are ignored.

    Args: see `coco_scores`.

    Returns:
        voc07_AP (the mean over IoU from 0.5 to 0.95), voc07_AP50 and voc07_AP75, each the mean over
        the classes of which an object counts; nothing where there is none.

    Raises:
        ValueError: The arguments do not fit together.
    """
    check_parallel(ground_truth, detections, num_classes)
    ignored = np.concatenate([one.difficult | one.crowd for one in ground_truth])  # (M,)
    labels = np.concatenate([one.labels for one in ground_truth])[~ignored]
    counts = np.bincount(labels.astype(np.int64), minlength=num_classes)  # (K,)
    if not counts.any():
        return {}
    ranking = _rank(ground_truth, detections, ignored)
    values = []
    for label in np.flatnonzero(counts):
        own = ranking.of(label)
        values.append([_average_precision(own, int(counts[label]), iou) for iou in IOUS])
    means = np.mean(values, axis=0)  # (10,)
    return {
        "voc07_AP": float(means.mean()),
        "voc07_AP50": float(means[AT_50]),
        "voc07_AP75": float(means[AT_75]),
    }


class _Ranking(NamedTuple):
    """The D detections of all images by descending score, and the object with the largest IoU."""

    labels: NDArray[np.integer]
    ious: NDArray[np.float64]
    """(D,) the largest IoU; 0 where an image has no object of the class."""
    objects: NDArray[np.int64]
    """(D,) index of that object among those of all images; arbitrary where IoU is 0."""
    ignored: NDArray[np.bool_]
    """(D,) whether that object is ignored."""

    def of(self, label: np.intp) -> "_Ranking":
        """Return the detections of one class."""
        chosen = self.labels == label
        return _Ranking(*(values[chosen] for values in self))


def _rank(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[DetectedObjects],
    ignored: NDArray[np.bool_],
) -> _Ranking:
    best = [_best_matches(*pair) for pair in zip(ground_truth, detections, strict=True)]
    starts = np.cumsum([0, *(len(truth.labels) for truth in ground_truth)])
    objects = np.concatenate([start + rows for start, (_, rows) in zip(starts, best, strict=False)])
    ious = np.concatenate([values for values, _ in best])
    labels = np.concatenate([detected.labels for detected in detections])
    scores = np.concatenate([detected.scores for detected in detections])
    order = np.argsort(-scores, kind="stable")  # (D,)
    objects = np.where(ious > 0, objects, 0)[order]
    return _Ranking(labels[order], ious[order], objects, ignored[objects])


def _best_matches(
    truth: GroundTruth, detected: DetectedObjects
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each detection's largest IoU with an object of its class (D,), and its index (D,)."""
    if not len(truth.labels):
        return np.zeros(len(detected.labels)), np.zeros(len(detected.labels), np.int64)
    same_class = detected.labels[:, None] == truth.labels  # (D, M)
    ious = np.where(same_class, _iou(detected.boxes, truth.boxes), 0)
    return ious.max(axis=1), ious.argmax(axis=1)


def _iou(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the IoU (D, M) of boxes (D, 4) and (M, 4); 0 for two without an area."""
    boxes, others = boxes[:, None].astype(np.float64), others.astype(np.float64)
    upper_left = np.maximum(boxes[..., :2], others[..., :2])
    lower_right = np.minimum(boxes[..., 2:], others[..., 2:])
    intersection = np.prod(np.maximum(lower_right - upper_left, 0), axis=-1)  # (D, M)
    areas, other_areas = (np.prod(one[..., 2:] - one[..., :2], axis=-1) for one in (boxes, others))
    union = areas + other_areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _average_precision(ranking: _Ranking, num_objects: int, threshold: float) -> float:
    """Return the mean over eleven recalls of the best precision at that recall or a higher one.

    Args:
        ranking: The detections of one class.
        num_objects: Objects of the class that are not ignored.
        threshold: IoU above which a detection matches.
    """
    matched = ranking.ious > threshold  # (D,)
    counted = ~(matched & ranking.ignored)
    objects, matched = ranking.objects[counted], matched[counted]  # (C,)
    rows = np.flatnonzero(matched)
    _, first_of_object = np.unique(objects[rows], return_index=True)
    is_hit = np.zeros(len(objects), np.bool_)
    is_hit[rows[first_of_object]] = True
    hits = np.cumsum(is_hit)
    precision = hits / np.arange(1, len(hits) + 1)
    best_from = np.maximum.accumulate(np.append(precision, 0)[::-1])[::-1]  # (C + 1,)
    return float(best_from[np.searchsorted(hits / num_objects, RECALLS)].mean())
