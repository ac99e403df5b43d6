"""Precision at each recall by COCO's and LVIS's rules, computed by faster-coco-eval.

A difficult object may be matched once, at the same IoU as any other, and is ignored either way.
COCO's `ignore` cannot express that, since the published program overwrites it with `iscrowd`. Here
such an object gets an area outside all ranges, and objects outside the ranges are ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval import mask as run_lengths
from numpy.typing import NDArray

from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, RunLengths, compressed

Kind = Literal["box", "mask"]
Range = tuple[float, float]
"""Least and most area in pixels, both included."""
Rows = list[dict[str, Any]]
"""Annotations as COCO's files hold them."""

LIBRARY_KINDS = {"box": "bbox", "mask": "segm"}
NUM_IOUS, NUM_RECALLS = 10, 101
"""Thresholds of IoU from 0.5 to 0.95, and recalls from 0 to 1."""
NO_AREA = -1.0
CLASSES_AT_ONCE = 10
"""Size of a block of classes. The library has an entry for each pair of image and class, of which
LVIS has 24 million; in blocks they take half the memory, and no more time."""


def precision_at_recalls(
    ground_truth: Sequence[GroundTruth],
    detections: Sequence[DetectedObjects],
    *,
    kind: Kind,
    num_classes: int,
    area_ranges: Sequence[Range],
    max_detections: int,
    federated: bool = False,
) -> NDArray[np.float64]:
    """Return the precision of each class at each IoU and recall; -1 where no object counts.

    Args:
        ground_truth: The annotated objects of each image.
        detections: The detections in the same images.
        kind: Whether IoU is that of boxes or of masks.
        num_classes: Number of classes; labels are below it.
        area_ranges: A ranges; objects outside are ignored, and so are unmatched detections.
        max_detections: Detections of a class in an image that count, by descending score.
        federated: Ignore unmatched detections of incomplete classes (LVIS). There must be no
            detection of a class that is neither annotated in the image nor known to be absent:
            the library may fail on its mask.

    Returns:
        (10, 101, K, A)
    """
    truth_table = _ground_truth_table(ground_truth, kind)
    detection_table = _detection_table(detections, kind)
    precision = np.full((NUM_IOUS, NUM_RECALLS, num_classes, len(area_ranges)), -1.0)
    present = np.unique(truth_table.labels).tolist()
    for start in range(0, len(present), CLASSES_AT_ONCE):
        labels = present[start : start + CLASSES_AT_ONCE]
        truth_rows, detection_rows = truth_table.rows(labels), detection_table.rows(labels)
        shown = sorted({row["image_id"] for row in (*truth_rows, *detection_rows)})
        evaluation = COCOeval_faster(
            *(
                _dataset(rows, [_image(index, ground_truth[index]) for index in shown], labels)
                for rows in (truth_rows, detection_rows)
            ),
            LIBRARY_KINDS[kind],
            print_function=_silent,
            lvis_style=federated,
        )
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng = list(map(list, area_ranges))
        evaluation.evaluate()
        precision[:, :, labels] = evaluation.eval["precision"][..., 0]
    return precision


def _silent(*_: object) -> None:
    """Print nothing where the library prints its progress."""


def _dataset(rows: Rows, images: Rows, labels: Sequence[int]) -> COCO:
    categories = [{"id": label, "frequency": "f"} for label in labels]  # read, but not used here
    content = {"images": images, "categories": categories, "annotations": rows}
    return COCO(content, print_function=_silent)


def _image(index: int, truth: GroundTruth) -> dict[str, Any]:
    return {
        "id": index,
        "height": int(truth.size[0]),
        "width": int(truth.size[1]),
        "neg_category_ids": set(truth.absent_labels),
        "not_exhaustive_category_ids": set(truth.incomplete_labels),
    }


@dataclass(frozen=True, eq=False)
class _Table:
    """The R objects of all images, stably sorted by class."""

    labels: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    """Arrays (R, ...) by COCO's names of the fields."""
    masks: list[RunLengths] | None

    def rows(self, labels: Sequence[int]) -> Rows:
        """Return the objects of these classes, sorted by class, with ids from 1."""
        chosen = np.flatnonzero(np.isin(self.labels, labels))
        fields = {name: values[chosen].tolist() for name, values in self.columns.items()}
        fields["id"] = list(range(1, len(chosen) + 1))
        if self.masks is not None:
            fields["segmentation"] = [dict(self.masks[row]) for row in chosen.tolist()]
        return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]


def _ground_truth_table(ground_truth: Sequence[GroundTruth], kind: Kind) -> _Table:
    areas = [np.where(one.difficult, NO_AREA, one.areas) for one in ground_truth]
    crowd = [one.crowd.astype(np.int64) for one in ground_truth]
    columns = {"area": np.concatenate(areas), "iscrowd": np.concatenate(crowd)}
    return _table(ground_truth, columns, _masks(ground_truth, kind))


def _detection_table(detections: Sequence[DetectedObjects], kind: Kind) -> _Table:
    masks = _masks(detections, kind)
    areas = np.prod(_sides(_corners(detections)), axis=1)
    if masks is not None:
        areas = np.asarray(run_lengths.area(masks), np.float64)  # pycocotools' takes 255 at most
    scores = np.concatenate([one.scores for one in detections]).astype(np.float64)
    return _table(detections, {"area": areas, "score": scores}, masks)


def _table(
    per_image: Sequence[GroundTruth | DetectedObjects],
    columns: dict[str, NDArray[Any]],
    masks: list[RunLengths] | None,
) -> _Table:
    """Return the table of all objects; columns (R,) and masks are in the images' order."""
    labels = np.concatenate([one.labels for one in per_image]).astype(np.int64)  # (R,)
    images = np.repeat(np.arange(len(per_image)), [len(one.labels) for one in per_image])
    corners = _corners(per_image)
    boxes = np.concatenate([corners[:, :2], _sides(corners)], axis=1)  # (R, 4)
    columns = {"image_id": images, "category_id": labels, "bbox": boxes, **columns}
    order = np.argsort(labels, kind="stable")
    return _Table(
        labels[order],
        {name: values[order] for name, values in columns.items()},
        None if masks is None else [masks[row] for row in order.tolist()],
    )


def _masks(
    per_image: Sequence[GroundTruth | DetectedObjects], kind: Kind
) -> list[RunLengths] | None:
    """Return the R compressed masks of all images, where IoU is that of masks."""
    if kind == "box":
        return None
    return [compressed(mask) for one in per_image for mask in one.masks or ()]


def _corners(per_image: Sequence[GroundTruth | DetectedObjects]) -> NDArray[np.float64]:
    """Return the boxes of all images, (R, 4)."""
    return np.concatenate([one.boxes for one in per_image]).astype(np.float64)


def _sides(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return widths and heights (R, 2) of boxes (R, 4)."""
    return corners[:, 2:] - corners[:, :2]
