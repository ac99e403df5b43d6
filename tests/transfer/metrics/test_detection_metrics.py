"""Detection metrics against pycocotools and against judging one detection after the other."""

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.oracles.detection_ap import (
    THRESHOLDS,
    pixels,
    pycocotools_scores,
    slow_ap,
    slow_lvis_scores,
    slow_voc_scores,
)
from virtex.data.sources.scenes import ScenesSource
from virtex.transfer.metrics.detection import coco_scores, lvis_scores
from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, encode_masks
from virtex.transfer.metrics.voc_detection import voc_scores

NUM_CLASSES = 6
NUM_SHOWN = 4
"""Classes from here on have no object, but detections."""
SIZE = 192
NAMES = ("AP", "AP50", "AP75")
KINDS = ("box", "mask")


@cache
def scenes() -> tuple[GroundTruth, ...]:
    """Drawn scenes whose many classes are folded into a few; one shows nothing."""
    source = ScenesSource(16, image_size=SIZE)
    examples = [source[index] for index in range(len(source))]
    ground_truth = [
        GroundTruth(
            size=(SIZE, SIZE),
            boxes=example.boxes,
            labels=np.array(example.box_labels) % NUM_SHOWN,
            areas=np.array([float(pixels(mask).sum()) for mask in example.masks]),
            crowd=np.zeros(len(example.masks), bool),
            difficult=np.zeros(len(example.masks), bool),
            masks=example.masks,
        )
        for example in examples
    ]
    return (*ground_truth, nothing())


def nothing() -> GroundTruth:
    none = np.zeros(0)
    flags = none.astype(bool)
    return GroundTruth(
        size=(SIZE, SIZE),
        boxes=np.zeros((0, 4)),
        labels=none.astype(int),
        areas=none,
        crowd=flags,
        difficult=flags,
        masks=[],
    )


def flagged(name: str, seed: int) -> list[GroundTruth]:
    """The scenes with a third of all objects crowd or difficult."""
    rng = np.random.default_rng(seed)
    return [replace(truth, **{name: rng.random(len(truth.labels)) < 1 / 3}) for truth in scenes()]


def federated(seed: int) -> list[GroundTruth]:
    """The scenes with some classes that are absent or incomplete, as LVIS tells."""
    rng = np.random.default_rng(seed)
    ground_truth = []
    for truth in scenes():
        others = sorted(set(range(NUM_CLASSES)) - set(truth.labels.tolist()))
        absent = tuple(label for label in others if rng.random() < 0.4)
        incomplete = tuple(label for label in range(NUM_CLASSES) if rng.random() < 0.3)
        ground_truth.append(replace(truth, absent_labels=absent, incomplete_labels=incomplete))
    return ground_truth


def shifted_scenes(seed: int, *, copies: int = 3) -> list[DetectedObjects]:
    """Shifted copies of the scenes' objects, some under a wrong class, with scores that tie."""
    rng = np.random.default_rng(seed)
    detections = [shifted(truth, rng, copies) for truth in scenes()]
    detections[1] = shifted(nothing(), rng, copies)
    detections[-1] = detections[0]
    return detections


def shifted(truth: GroundTruth, rng: np.random.Generator, copies: int) -> DetectedObjects:
    rows = np.repeat(np.arange(len(truth.labels)), rng.integers(0, copies + 1, len(truth.labels)))
    shifts = (rng.normal(size=(len(rows), 2)) * rng.choice([1, 5, 20], (len(rows), 1))).astype(int)
    masks = [
        np.roll(pixels(truth.masks[row]), shift[::-1], axis=(0, 1))
        for row, shift in zip(rows, shifts, strict=True)
    ]
    is_wrong = rng.random(len(rows)) < 0.2
    return DetectedObjects(
        boxes=truth.boxes[rows] + np.tile(shifts, 2) + rng.normal(size=(len(rows), 4)) * 0.5,
        labels=np.where(is_wrong, rng.integers(0, NUM_CLASSES, len(rows)), truth.labels[rows]),
        scores=rng.integers(0, 11, len(rows)) / 10,
        masks=encode_masks(np.array(masks, bool).reshape(-1, SIZE, SIZE)),
    )


def without_masks(objects):
    return [replace(one, masks=None) for one in objects]


def flawless(ground_truth) -> list[DetectedObjects]:
    """The objects themselves."""
    return [
        DetectedObjects(truth.boxes, truth.labels, np.ones(len(truth.labels)), truth.masks)
        for truth in ground_truth
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", ["crowd", "difficult"])
@pytest.mark.parametrize("max_detections", [100, 2])
def test_coco_scores_equal_pycocotools(kind, flag, max_detections) -> None:
    ground_truth, detections = flagged(flag, seed=1), shifted_scenes(2, copies=5)
    ours = coco_scores(
        ground_truth, detections, num_classes=NUM_CLASSES, max_detections=max_detections
    )
    theirs = pycocotools_scores(
        ground_truth, detections, kind=kind, num_classes=NUM_CLASSES, max_detections=max_detections
    )
    assert set(theirs) <= set(ours)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
    assert 0.05 < ours[f"{kind}_AP"] < 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_coco_scores_equal_a_slow_evaluation(kind, flag) -> None:
    ground_truth, detections = flagged(flag, seed=3), shifted_scenes(4)
    values = [
        slow_ap(ground_truth, detections, label, threshold, kind=kind)
        for label in range(NUM_CLASSES)
        for threshold in THRESHOLDS
    ]
    slow = np.mean([value for value in values if value is not None])
    scores = coco_scores(ground_truth, detections, num_classes=NUM_CLASSES)
    assert scores[f"{kind}_AP"] == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_detections", [300, 4])
def test_lvis_scores_equal_a_slow_evaluation(kind, max_detections) -> None:
    ground_truth, detections, frequencies = federated(5), shifted_scenes(6, copies=5), "rcffrc"
    ours = lvis_scores(
        ground_truth, detections, frequencies=frequencies, max_detections=max_detections
    )
    slow = slow_lvis_scores(
        ground_truth, detections, kind=kind, frequencies=frequencies, max_detections=max_detections
    )
    assert {name: ours[name] for name in slow} == pytest.approx(slow, abs=1e-9)
    assert len(ours) == 2 * len(slow) == 12


def test_lvis_ignores_classes_that_nobody_looked_for() -> None:
    ground_truth = [replace(truth, absent_labels=()) for truth in scenes()]
    detections = flawless(ground_truth)
    stray = DetectedObjects(np.array([[1.0, 1, 9, 9]]), np.array([2]), np.array([2.0]))
    without, detections[-1] = without_masks(ground_truth), stray
    detections = without_masks(detections)
    assert lvis_scores(without, detections, frequencies="f" * NUM_CLASSES)["box_AP"] == 1
    without[-1] = replace(without[-1], absent_labels=(2,))
    assert lvis_scores(without, detections, frequencies="f" * NUM_CLASSES)["box_AP"] < 1
    without[-1] = replace(without[-1], incomplete_labels=(2,))
    assert lvis_scores(without, detections, frequencies="f" * NUM_CLASSES)["box_AP"] == 1


def test_voc_scores_equal_a_slow_evaluation() -> None:
    ground_truth, detections = flagged("difficult", seed=7), shifted_scenes(8, copies=6)
    ours = voc_scores(ground_truth, detections, num_classes=NUM_CLASSES)
    assert ours == pytest.approx(
        slow_voc_scores(ground_truth, detections, num_classes=NUM_CLASSES), abs=1e-9
    )
    assert 0.05 < ours["voc07_AP"] < ours["voc07_AP50"] < 0.95


def test_half_of_the_objects_found_is_6_of_vocs_11_recalls_and_51_of_cocos_101() -> None:
    boxes, flags = np.array([[10.0, 10, 50, 50], [80, 80, 120, 140]]), np.zeros(2, bool)
    truth = GroundTruth((SIZE, SIZE), boxes, np.zeros(2, int), np.ones(2), flags, flags)
    found = DetectedObjects(boxes[:1], np.zeros(1, int), np.ones(1))
    both = [truth], [found]
    voc, coco = voc_scores(*both, num_classes=1), coco_scores(*both, num_classes=1)
    assert [voc[f"voc07_{name}"] for name in NAMES] == pytest.approx([6 / 11] * 3)
    assert [coco[f"box_{name}"] for name in NAMES] == pytest.approx([51 / 101] * 3)


def test_voc_ignores_difficult_objects() -> None:
    ground_truth = flagged("difficult", seed=9)
    detections = flawless(ground_truth)
    kept = [~truth.difficult for truth in ground_truth]
    fewer = [
        replace(one, boxes=one.boxes[keep], labels=one.labels[keep], scores=one.scores[keep])
        for one, keep in zip(without_masks(detections), kept, strict=True)
    ]
    for one in (without_masks(detections), fewer):
        assert (
            voc_scores(without_masks(ground_truth), one, num_classes=NUM_CLASSES)["voc07_AP"] == 1
        )


def test_finding_every_object_and_nothing_else_scores_one() -> None:
    ground_truth = list(scenes())
    detections = flawless(ground_truth)
    scores = {
        **coco_scores(ground_truth, detections, num_classes=NUM_CLASSES),
        **lvis_scores(ground_truth, detections, frequencies="rcffff"),
        **voc_scores(ground_truth, detections, num_classes=NUM_CLASSES),
    }
    assert len(scores) == 12 + 6 + 3  # AP, AP50 and AP75 have the same names for COCO and LVIS
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0), abs=1e-12)


def test_finding_nothing_scores_zero() -> None:
    ground_truth = list(scenes())
    detections = [shifted(nothing(), np.random.default_rng(0), 1) for _ in ground_truth]
    for scores in (
        coco_scores(ground_truth, detections, num_classes=NUM_CLASSES),
        lvis_scores(ground_truth, detections, frequencies="rcffff"),
        voc_scores(ground_truth, detections, num_classes=NUM_CLASSES),
    ):
        assert scores == dict.fromkeys(scores, 0.0)
        assert scores


def test_what_has_no_object_is_left_out() -> None:
    ground_truth, detections = [nothing()], shifted_scenes(0)[:1]
    assert coco_scores(ground_truth, detections, num_classes=NUM_CLASSES) == {}
    assert voc_scores(ground_truth, detections, num_classes=NUM_CLASSES) == {}
    small = [replace(truth, areas=np.full(len(truth.areas), 9.0)) for truth in scenes()]
    scores = coco_scores(small, flawless(small), num_classes=NUM_CLASSES)
    assert "box_APs" in scores
    assert not {"box_APm", "mask_APl"} & set(scores)
    assert not {"box_APr", "box_APc"} & set(
        lvis_scores(small, flawless(small), frequencies="f" * 6)
    )


def test_boxes_alone_give_no_scores_of_masks() -> None:
    ground_truth, detections = scenes(), shifted_scenes(10)
    everything = coco_scores(ground_truth, detections, num_classes=NUM_CLASSES)
    alone = coco_scores(
        without_masks(ground_truth), without_masks(detections), num_classes=NUM_CLASSES
    )
    assert alone == {name: value for name, value in everything.items() if name.startswith("box")}
    assert len(everything) == 2 * len(alone)


def test_blocks_of_classes_do_not_change_a_score(monkeypatch) -> None:
    arguments = (federated(11), shifted_scenes(12))
    before = lvis_scores(*arguments, frequencies="rcffrc")
    monkeypatch.setattr("virtex.transfer.metrics.coco_precision.CLASSES_AT_ONCE", 1)
    assert lvis_scores(*arguments, frequencies="rcffrc") == before


def test_encoded_masks_hold_the_same_pixels() -> None:
    masks = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    encoded = encode_masks(masks)
    assert [mask["size"] for mask in encoded] == [[5, 7]] * 3
    np.testing.assert_array_equal([pixels(mask) for mask in encoded], masks)


def test_run_lengths_need_not_be_compressed() -> None:
    ground_truth = list(scenes())
    assert all(isinstance(mask["counts"], list) for truth in ground_truth for mask in truth.masks)
    packed = [
        replace(truth, masks=encode_masks(np.array([pixels(mask) for mask in truth.masks])))
        for truth in ground_truth
    ]
    detections = shifted_scenes(13)
    scores = coco_scores(ground_truth, detections, num_classes=NUM_CLASSES)
    assert coco_scores(packed, detections, num_classes=NUM_CLASSES) == scores


def test_an_image_may_hold_more_masks_than_a_byte_counts() -> None:
    truth = scenes()[0]
    rows = np.zeros(300, int)
    detections = DetectedObjects(
        truth.boxes[rows], truth.labels[rows], -np.arange(300.0), [truth.masks[0]] * 300
    )
    assert coco_scores([truth], [detections], num_classes=NUM_CLASSES)["mask_AP"] == 1


def test_scoring_prints_nothing_and_needs_no_opencv() -> None:
    program = (
        "import sys, logging; sys.modules['cv2'] = None; logging.basicConfig(level=logging.INFO)\n"
        "from tests.transfer.metrics.test_detection_metrics import *\n"
        "coco_scores(scenes(), shifted_scenes(0), num_classes=NUM_CLASSES)\n"
        "lvis_scores(scenes(), shifted_scenes(0), frequencies='rcffrc')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_arguments_that_do_not_fit_are_errors() -> None:
    ground_truth, detections = list(scenes()), shifted_scenes(14)
    with pytest.raises(ValueError, match="of 17 images and detections of 16"):
        coco_scores(ground_truth, detections[:-1], num_classes=NUM_CLASSES)
    with pytest.raises(ValueError, match="no image"):
        voc_scores([], [], num_classes=NUM_CLASSES)
    with pytest.raises(ValueError, match=r"image 7 has labels \[3, 4, 5\]; 3 classes"):
        coco_scores(ground_truth, detections, num_classes=3)
    with pytest.raises(ValueError, match="ground truth with masks and detections with no masks"):
        coco_scores(ground_truth, without_masks(detections), num_classes=NUM_CLASSES)
    with pytest.raises(ValueError, match=r"frequencies are \['x'\]"):
        lvis_scores(ground_truth, detections, frequencies="rcfxrc")
    smaller = [replace(truth, size=(SIZE, SIZE - 1)) for truth in ground_truth]
    with pytest.raises(ValueError, match=r"image 0 is \(192, 191\)"):
        coco_scores(smaller, detections, num_classes=NUM_CLASSES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": np.array([np.nan, 1])}, "scores hold NaN"),
        ({"scores": np.ones(3)}, r"2 labels and scores \(3,\)"),
        ({"boxes": np.ones((1, 4))}, r"2 labels and boxes \(1, 4\)"),
        ({"boxes": np.array([[0, 0, 1, 1], [5, 0, 1, 1]])}, "inside out"),
        ({"masks": []}, "2 labels and 0 masks"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(fields, message) -> None:
    fitting = {"boxes": np.ones((2, 4)), "labels": np.zeros(2, int), "scores": np.ones(2)}
    DetectedObjects(**fitting)
    with pytest.raises(ValueError, match=message):
        DetectedObjects(**{**fitting, **fields})
