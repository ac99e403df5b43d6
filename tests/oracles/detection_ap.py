"""COCO's, LVIS's and VOC's average precision, detection by detection; and pycocotools itself."""

import contextlib
import io
from dataclasses import replace

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def slow_ap(ground_truth, detections, label, threshold, *, kind, federated=False):
    """One class's 101-point AP over objects of all sizes; None if no object counts."""
    judged, num_objects = [], 0
    for truth, detected in zip(ground_truth, detections, strict=True):
        objects = [i for i in range(len(truth.labels)) if truth.labels[i] == label]
        if federated and not objects and label not in truth.absent_labels:
            continue
        lenient = {i for i in objects if truth.crowd[i] or truth.difficult[i]}
        num_objects += len(objects) - len(lenient)
        chosen = [d for d in range(len(detected.labels)) if detected.labels[d] == label]
        taken = set()
        for d in sorted(chosen, key=lambda d: -detected.scores[d]):
            overlaps = {
                i: slow_overlap(detected, d, truth, i, kind) for i in objects if i not in taken
            }
            near = [i for i in overlaps if overlaps[i] >= threshold]
            near = [i for i in near if i not in lenient] or near
            if near:
                best = max(near, key=lambda i: (overlaps[i], i))
                if not truth.crowd[best]:
                    taken.add(best)
                if best not in lenient:
                    judged.append((detected.scores[d], True))
            elif not (federated and label in truth.incomplete_labels):
                judged.append((detected.scores[d], False))
    if not num_objects:
        return None
    judged.sort(key=lambda pair: -pair[0])
    return interpolated(judged, num_objects, RECALLS)


def interpolated(judged, num_objects, recalls):
    """The mean over recalls of the best precision at that recall or a higher one."""
    points, hits = [], 0
    for rank, (_, is_hit) in enumerate(judged, start=1):
        hits += is_hit
        points.append((hits / num_objects, hits / rank))
    best = [max([p for r, p in points if r >= recall], default=0.0) for recall in recalls]
    return sum(best) / len(best)


def slow_overlap(detected, d, truth, i, kind):
    if kind == "box":
        shared, detected_area, true_area = shared_area(detected.boxes[d], truth.boxes[i])
    else:
        a, b = (pixels(one) for one in (detected.masks[d], truth.masks[i]))
        shared, detected_area, true_area = (a & b).sum(), a.sum(), b.sum()
    return shared / (detected_area if truth.crowd[i] else detected_area + true_area - shared)


def shared_area(box, other):
    (a, b, c, d), (e, f, g, h) = map(float, box), map(float, other)
    shared = max(min(c, g) - max(a, e), 0) * max(min(d, h) - max(b, f), 0)
    return shared, (c - a) * (d - b), (g - e) * (h - f)


def pixels(mask):
    if isinstance(mask["counts"], list):
        values = np.arange(len(mask["counts"])) % 2
        return np.repeat(values, mask["counts"]).reshape(mask["size"], order="F").astype(bool)
    return run_lengths.decode(mask).astype(bool)


def slow_lvis_scores(ground_truth, detections, *, kind, frequencies, max_detections):
    detections = [highest_scoring(one, max_detections) for one in detections]
    table = {
        label: [
            slow_ap(ground_truth, detections, label, threshold, kind=kind, federated=True)
            for threshold in THRESHOLDS
        ]
        for label in range(len(frequencies))
    }
    table = {label: values for label, values in table.items() if values[0] is not None}
    scores = {
        "AP": [value for values in table.values() for value in values],
        "AP50": [values[0] for values in table.values()],
        "AP75": [values[5] for values in table.values()],
    }
    for name in "rcf":
        scores[f"AP{name}"] = [
            value for label in table if frequencies[label] == name for value in table[label]
        ]
    return {f"{kind}_{name}": np.mean(values) for name, values in scores.items() if values}


def highest_scoring(detected, count):
    """The highest-scoring detections of all classes."""
    rows = sorted(range(len(detected.scores)), key=lambda d: -detected.scores[d])[:count]
    return replace(
        detected,
        boxes=detected.boxes[rows],
        labels=detected.labels[rows],
        scores=detected.scores[rows],
        masks=[detected.masks[d] for d in rows],
    )


def slow_voc_scores(ground_truth, detections, *, num_classes):
    table = []
    for threshold in THRESHOLDS:
        values = [
            slow_voc_ap(ground_truth, detections, label, threshold) for label in range(num_classes)
        ]
        table.append(np.mean([value for value in values if value is not None]))
    return {"voc07_AP": np.mean(table), "voc07_AP50": table[0], "voc07_AP75": table[5]}


def slow_voc_ap(ground_truth, detections, label, threshold):
    """One class's 11-point AP, in VOC's own pixels, which count from 1 to the last one."""
    everything = [
        (detected.scores[d], image, voc_pixels(detected.boxes[d]))
        for image, detected in enumerate(detections)
        for d in range(len(detected.labels))
        if detected.labels[d] == label
    ]
    num_objects = sum(
        truth.labels[i] == label and not truth.difficult[i]
        for truth in ground_truth
        for i in range(len(truth.labels))
    )
    if not num_objects:
        return None
    judged, detected = [], set()
    for score, image, box in sorted(everything, key=lambda row: -row[0]):
        truth, best, best_overlap = ground_truth[image], None, threshold
        for i in range(len(truth.labels)):
            overlap = voc_overlap(box, voc_pixels(truth.boxes[i]))
            if truth.labels[i] == label and overlap > best_overlap:
                best, best_overlap = i, overlap
        if best is None or not truth.difficult[best]:
            judged.append((score, best is not None and (image, best) not in detected))
            detected.add((image, best))
    return interpolated(judged, num_objects, [step * 0.1 for step in range(11)])


def voc_pixels(box):
    """First and last pixel in both directions, counted from 1."""
    return box[0] + 1.0, box[1] + 1.0, float(box[2]), float(box[3])


def voc_overlap(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1.0
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1.0
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(one[2] - one[0] + 1.0) * (one[3] - one[1] + 1.0) for one in (box, other)]
    return width * height / (sum(areas) - width * height)


def pycocotools_scores(ground_truth, detections, *, kind, num_classes, max_detections=100):
    """COCOeval's six numbers; -1 where there is no object."""
    images, truth_rows, detection_rows = [], [], []
    for image, (truth, detected) in enumerate(zip(ground_truth, detections, strict=True)):
        images.append({"id": image, "height": truth.size[0], "width": truth.size[1]})
        for i in range(len(truth.labels)):
            row = coco_row(image, truth, i, kind, len(truth_rows) + 1)
            area = -1.0 if truth.difficult[i] else float(truth.areas[i])
            truth_rows.append({**row, "area": area, "iscrowd": int(truth.crowd[i])})
        for d in range(len(detected.labels)):
            row = coco_row(image, detected, d, kind, len(detection_rows) + 1)
            if kind == "mask":
                del row["bbox"]
            detection_rows.append({**row, "score": float(detected.scores[d])})
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO()
        annotated.dataset = {
            "images": images,
            "annotations": truth_rows,
            "categories": [{"id": label} for label in range(num_classes)],
            "info": {},
        }
        annotated.createIndex()
        kinds = {"box": "bbox", "mask": "segm"}
        evaluation = COCOeval(annotated, annotated.loadRes(detection_rows), kinds[kind])
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]
    groups = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]]
    groups += [precision[..., place] for place in (1, 2, 3)]
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return {
        f"{kind}_{name}": values[values > -1].mean() if (values > -1).any() else -1
        for name, values in zip(names, groups, strict=True)
    }


def coco_row(image, objects, index, kind, row_id):
    left, top, right, bottom = map(float, objects.boxes[index])
    row = {"id": row_id, "image_id": image, "category_id": int(objects.labels[index])}
    row["bbox"] = [left, top, right - left, bottom - top]
    if kind == "mask":
        row["segmentation"] = dict(objects.masks[index])
    return row
