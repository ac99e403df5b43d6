"""Time of COCO's average precision, compared with pycocotools on the same detections.

Objects are synthetic: boxes of all sizes, with rectangular masks. Half of the detections are
shifted objects, and half are random. Both are run once, on the same arrays.

    python -m benchmarks.average_precision [--images 500] [--classes 80] [--detections 50]
"""

import argparse
import time

import numpy as np
from pycocotools import mask as run_lengths

from tests.oracles.detection_ap import pycocotools_scores
from virtex.transfer.metrics.detection import coco_scores
from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth

SIZE = 640
OBJECTS = 7
"""Objects per image, as in COCO."""


def boxes_anywhere(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return corners (count, 4) of random boxes with sides of 8 to 400 pixels."""
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    corners = rng.random((count, 2)) * (SIZE - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def rectangles(boxes: np.ndarray) -> list[dict]:
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return run_lengths.frPyObjects(sides, SIZE, SIZE)


def made_up(
    rng: np.random.Generator, *, num_classes: int, num_detections: int
) -> tuple[GroundTruth, DetectedObjects]:
    """Return the ground truth and the detections of one image."""
    boxes, flags = boxes_anywhere(rng, OBJECTS), np.zeros(OBJECTS, bool)
    labels = rng.integers(0, num_classes, OBJECTS)
    masks, areas = rectangles(boxes), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    ground_truth = GroundTruth((SIZE, SIZE), boxes, labels, areas, flags, flags, masks)
    rows = rng.integers(0, OBJECTS, num_detections // 2)
    shifted = boxes[rows] + rng.normal(size=(len(rows), 4)) * 2
    strays = boxes_anywhere(rng, num_detections - len(rows))
    stray_labels = rng.integers(0, num_classes, len(strays))
    detections = np.concatenate([np.clip(shifted, 0, SIZE), strays])
    detected_labels = np.concatenate([labels[rows], stray_labels])
    scores = rng.random(num_detections).round(2)
    return ground_truth, DetectedObjects(
        detections, detected_labels, scores, rectangles(detections)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections", type=int, default=50, help="per image")
    options = parser.parse_args()

    rng, num_classes = np.random.default_rng(0), options.classes
    pairs = [
        made_up(rng, num_classes=num_classes, num_detections=options.detections)
        for _ in range(options.images)
    ]
    ground_truth, detections = map(list, zip(*pairs, strict=True))
    start = time.perf_counter()
    ours = coco_scores(ground_truth, detections, num_classes=num_classes)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs = {}
    for kind in ("box", "mask"):
        theirs |= pycocotools_scores(ground_truth, detections, kind=kind, num_classes=num_classes)
    slow = time.perf_counter() - start
    difference = max(abs(ours[name] - value) for name, value in theirs.items())
    print(f"ours        {seconds:6.1f} s   box AP {ours['box_AP']:.4f}")
    print(f"pycocotools {slow:6.1f} s   box AP {theirs['box_AP']:.4f}")
    print(
        f"{slow / seconds:.1f} times as fast; the {len(theirs)} scores differ by {difference:.1e}"
    )


if __name__ == "__main__":
    main()
