"""Average precision of boxes and masks by the rules of COCO and LVIS; fractions from 0 to 1.

COCO's rules are those of its published program. LVIS's are those of Gupta et al., "LVIS", CVPR
2019, section 3: detections of a class that nobody looked for in an image are ignored, and so are
unmatched detections of a class of which not every object is annotated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from virtex.transfer.metrics.coco_precision import Kind, Range, precision_at_recalls
from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, check_parallel

ALL_AREAS: Range = (0, 1e5**2)
SIZES: dict[str, Range] = {"s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e5**2)}
"""Areas in pixels of small, medium and large objects."""
FREQUENCIES = ("r", "c", "f")
AT_50, AT_75 = 0, 5
"""Indices of IoU 0.5 and 0.75 among the ten from 0.5 to 0.95."""


def coco_scores(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[DetectedObjects],
    *,
    num_classes: int,
    max_detections: int = 100,
) -> dict[str, float]:
    """Return COCO's average precision of boxes, and of masks where there are any.

    Args:
        ground_truth: The annotated objects of each image.
        detections: The detections in the same images.
        num_classes: Number of classes; labels are below it.
        max_detections: Detections of a class in an image that count, by descending score.

    Returns:
        box_AP (the mean over IoU from 0.5 to 0.95), box_AP50, box_AP75, box_APs, box_APm and
        box_APl, and the same with mask_; without those for which no object counts.

    Raises:
        ValueError: The arguments do not fit together.
    """
    scores: dict[str, float] = {}
    for kind in _kinds(ground_truth, detections, num_classes):
        precision = precision_at_recalls(
            ground_truth,
            detections,
            kind=kind,
            num_classes=num_classes,
            area_ranges=(ALL_AREAS, *SIZES.values()),
            max_detections=max_detections,
        )  # (10, 101, K, 4)
        sizes = {f"AP{name}": precision[..., k] for k, name in enumerate(SIZES, start=1)}
        scores |= _means(kind, {**_at_ious(precision[..., 0]), **sizes})
    return scores


def lvis_scores(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[DetectedObjects],
    *,
    frequencies: Sequence[str],
    max_detections: int = 300,
) -> dict[str, float]:
    """Return LVIS's average precision of boxes, and of masks where there are any.

    Args:
        ground_truth: The annotated objects of each image, its absent and incomplete classes.
        detections: The detections in the same images.
        frequencies: For each class r (rare), c (common) or f (frequent).
        max_detections: Detections of all classes in an image that count, by descending score.

    Returns:
        box_AP (the mean over IoU from 0.5 to 0.95), box_AP50, box_AP75, box_APr, box_APc and
        box_APf, and the same with mask_; without those for which no object counts.

    Raises:
        ValueError: The arguments do not fit together.
    """
    if unknown := sorted(set(frequencies) - set(FREQUENCIES)):
        raise ValueError(f"frequencies are {unknown}; give one of {', '.join(FREQUENCIES)} a class")
    kinds = _kinds(ground_truth, detections, len(frequencies))
    judged = [_judged(*pair, max_detections) for pair in zip(ground_truth, detections, strict=True)]
    scores: dict[str, float] = {}
    for kind in kinds:
        precision = precision_at_recalls(
            ground_truth,
            judged,
            kind=kind,
            num_classes=len(frequencies),
            area_ranges=(ALL_AREAS,),
            max_detections=max_detections,
            federated=True,
        )[..., 0]  # (10, 101, K)
        of_class = np.array(list(frequencies))  # (K,)
        groups = {f"AP{one}": precision[:, :, of_class == one] for one in FREQUENCIES}
        scores |= _means(kind, {**_at_ious(precision), **groups})
    return scores


def _kinds(
    ground_truth: Sequence[GroundTruth], detections: Sequence[DetectedObjects], num_classes: int
) -> tuple[Kind, ...]:
    has_masks = check_parallel(ground_truth, detections, num_classes)
    return ("box", "mask") if has_masks else ("box",)


def _judged(truth: GroundTruth, detected: DetectedObjects, max_detections: int) -> DetectedObjects:
    """Return the highest-scoring detections without those of classes that nobody looked for."""
    best = np.argsort(-detected.scores, kind="stable")[:max_detections]
    rows = best[np.isin(detected.labels[best], [*truth.labels.tolist(), *truth.absent_labels])]
    return replace(
        detected,
        boxes=detected.boxes[rows],
        labels=detected.labels[rows],
        scores=detected.scores[rows],
        masks=None if detected.masks is None else [detected.masks[row] for row in rows.tolist()],
    )


def _at_ious(precision: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"AP": precision, "AP50": precision[AT_50], "AP75": precision[AT_75]}


def _means(kind: Kind, groups: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the mean precision of each group that has any; -1 marks classes without objects."""
    known = {f"{kind}_{name}": values[values > -1] for name, values in groups.items()}
    return {name: float(values.mean()) for name, values in known.items() if values.size}
