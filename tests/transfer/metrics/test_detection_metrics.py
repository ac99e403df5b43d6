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
from virtex.transfer.metrics.detection import (
    FoundObjects,
    TrueObjects,
    coco_scores,
    encode_masks,
    lvis_scores,
    voc_scores,
)

NUM_CLASSES = 6
NUM_SHOWN = 4
"""Classes from here on have no object, but detections."""
SIZE = 192
KINDS = ("box", "mask")


@cache
def scenes() -> tuple[TrueObjects, ...]:
    """Drawn scenes whose many classes are folded into a few; one shows nothing."""
    source = ScenesSource(16, image_size=SIZE)
    examples = [source[index] for index in range(len(source))]
    truth = [
        TrueObjects(
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
    return (*truth, nothing())


def nothing() -> TrueObjects:
    none = np.zeros(0)
    flags = none.astype(bool)
    return TrueObjects(
        size=(SIZE, SIZE),
        boxes=np.zeros((0, 4)),
        labels=none.astype(int),
        areas=none,
        crowd=flags,
        difficult=flags,
        masks=[],
    )


def flagged(name: str, seed: int) -> list[TrueObjects]:
    """The scenes with a third of all objects crowd or difficult."""
    rng = np.random.default_rng(seed)
    return [replace(true, **{name: rng.random(len(true.labels)) < 1 / 3}) for true in scenes()]


def federated(seed: int) -> list[TrueObjects]:
    """The scenes with some classes that are absent or incomplete, as LVIS tells."""
    rng = np.random.default_rng(seed)
    truth = []
    for true in scenes():
        others = sorted(set(range(NUM_CLASSES)) - set(true.labels.tolist()))
        absent = tuple(label for label in others if rng.random() < 0.4)
        incomplete = tuple(label for label in range(NUM_CLASSES) if rng.random() < 0.3)
        truth.append(replace(true, absent_labels=absent, incomplete_labels=incomplete))
    return truth


def detections(seed: int, *, copies: int = 3) -> list[FoundObjects]:
    """Shifted copies of the scenes' objects, some under a wrong class, with scores that tie."""
    rng = np.random.default_rng(seed)
    found = [shifted(true, rng, copies) for true in scenes()]
    found[1] = shifted(nothing(), rng, copies)
    found[-1] = found[0]
    return found


def shifted(true: TrueObjects, rng: np.random.Generator, copies: int) -> FoundObjects:
    rows = np.repeat(np.arange(len(true.labels)), rng.integers(0, copies + 1, len(true.labels)))
    shifts = (rng.normal(size=(len(rows), 2)) * rng.choice([1, 5, 20], (len(rows), 1))).astype(int)
    masks = [
        np.roll(pixels(true.masks[row]), shift[::-1], axis=(0, 1))
        for row, shift in zip(rows, shifts, strict=True)
    ]
    is_wrong = rng.random(len(rows)) < 0.2
    return FoundObjects(
        boxes=true.boxes[rows] + np.tile(shifts, 2) + rng.normal(size=(len(rows), 4)) * 0.5,
        labels=np.where(is_wrong, rng.integers(0, NUM_CLASSES, len(rows)), true.labels[rows]),
        scores=rng.integers(0, 11, len(rows)) / 10,
        masks=encode_masks(np.array(masks, bool).reshape(-1, SIZE, SIZE)),
    )


def without_masks(objects):
    return [replace(one, masks=None) for one in objects]


def flawless(truth) -> list[FoundObjects]:
    """The objects themselves."""
    return [
        FoundObjects(true.boxes, true.labels, np.ones(len(true.labels)), true.masks)
        for true in truth
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", ["crowd", "difficult"])
@pytest.mark.parametrize("max_detections", [100, 2])
def test_coco_scores_equal_pycocotools(kind, flag, max_detections) -> None:
    truth, found = flagged(flag, seed=1), detections(2, copies=5)
    ours = coco_scores(truth, found, num_classes=NUM_CLASSES, max_detections=max_detections)
    theirs = pycocotools_scores(
        truth, found, kind=kind, num_classes=NUM_CLASSES, max_detections=max_detections
    )
    assert set(theirs) <= set(ours)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
    assert 0.05 < ours[f"{kind}_AP"] < 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_coco_scores_equal_judging_one_detection_after_the_other(kind, flag) -> None:
    truth, found = flagged(flag, seed=3), detections(4)
    values = [
        slow_ap(truth, found, label, threshold, kind=kind)
        for label in range(NUM_CLASSES)
        for threshold in THRESHOLDS
    ]
    slow = np.mean([value for value in values if value is not None])
    scores = coco_scores(truth, found, num_classes=NUM_CLASSES)
    assert scores[f"{kind}_AP"] == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_detections", [300, 4])
def test_lvis_scores_equal_judging_one_detection_after_the_other(kind, max_detections) -> None:
    truth, found, frequencies = federated(5), detections(6, copies=5), "rcffrc"
    ours = lvis_scores(truth, found, frequencies=frequencies, max_detections=max_detections)
    slow = slow_lvis_scores(
        truth, found, kind=kind, frequencies=frequencies, max_detections=max_detections
    )
    assert {name: ours[name] for name in slow} == pytest.approx(slow, abs=1e-9)
    assert len(ours) == 2 * len(slow) == 12


def test_classes_that_nobody_looked_for_cost_nothing_in_lvis() -> None:
    truth = [replace(true, absent_labels=()) for true in scenes()]
    found = flawless(truth)
    stray = FoundObjects(np.array([[1.0, 1, 9, 9]]), np.array([2]), np.array([2.0]))
    without, found[-1] = without_masks(truth), stray
    found = without_masks(found)
    assert lvis_scores(without, found, frequencies="f" * NUM_CLASSES)["box_AP"] == 1
    without[-1] = replace(without[-1], absent_labels=(2,))
    assert lvis_scores(without, found, frequencies="f" * NUM_CLASSES)["box_AP"] < 1
    without[-1] = replace(without[-1], incomplete_labels=(2,))
    assert lvis_scores(without, found, frequencies="f" * NUM_CLASSES)["box_AP"] == 1


def test_voc_scores_equal_judging_one_detection_after_the_other() -> None:
    truth, found = flagged("difficult", seed=7), detections(8, copies=6)
    ours = voc_scores(truth, found, num_classes=NUM_CLASSES)
    assert ours == pytest.approx(slow_voc_scores(truth, found, num_classes=NUM_CLASSES), abs=1e-9)
    assert 0.05 < ours["voc07_AP"] < ours["voc07_AP50"] < 0.95


def test_an_object_that_counts_for_nothing_may_be_found_or_not_in_voc() -> None:
    truth = flagged("difficult", seed=9)
    found = flawless(truth)
    kept = [~true.difficult for true in truth]
    fewer = [
        replace(one, boxes=one.boxes[keep], labels=one.labels[keep], scores=one.scores[keep])
        for one, keep in zip(without_masks(found), kept, strict=True)
    ]
    for one in (without_masks(found), fewer):
        assert voc_scores(without_masks(truth), one, num_classes=NUM_CLASSES)["voc07_AP"] == 1


def test_finding_every_object_and_nothing_else_scores_one() -> None:
    truth = list(scenes())
    found = flawless(truth)
    scores = {
        **coco_scores(truth, found, num_classes=NUM_CLASSES),
        **lvis_scores(truth, found, frequencies="rcffff"),
        **voc_scores(truth, found, num_classes=NUM_CLASSES),
    }
    assert len(scores) == 12 + 6 + 3  # AP, AP50 and AP75 have the same names for COCO and LVIS
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0), abs=1e-12)


def test_finding_nothing_scores_zero() -> None:
    truth = list(scenes())
    found = [shifted(nothing(), np.random.default_rng(0), 1) for _ in truth]
    for scores in (
        coco_scores(truth, found, num_classes=NUM_CLASSES),
        lvis_scores(truth, found, frequencies="rcffff"),
        voc_scores(truth, found, num_classes=NUM_CLASSES),
    ):
        assert scores == dict.fromkeys(scores, 0.0)
        assert scores


def test_what_has_no_object_is_left_out() -> None:
    truth, found = [nothing()], detections(0)[:1]
    assert coco_scores(truth, found, num_classes=NUM_CLASSES) == {}
    assert voc_scores(truth, found, num_classes=NUM_CLASSES) == {}
    small = [replace(true, areas=np.full(len(true.areas), 9.0)) for true in scenes()]
    scores = coco_scores(small, flawless(small), num_classes=NUM_CLASSES)
    assert "box_APs" in scores
    assert not {"box_APm", "mask_APl"} & set(scores)
    assert not {"box_APr", "box_APc"} & set(
        lvis_scores(small, flawless(small), frequencies="f" * 6)
    )


def test_boxes_alone_give_no_scores_of_masks() -> None:
    truth, found = scenes(), detections(10)
    everything = coco_scores(truth, found, num_classes=NUM_CLASSES)
    alone = coco_scores(without_masks(truth), without_masks(found), num_classes=NUM_CLASSES)
    assert alone == {name: value for name, value in everything.items() if name.startswith("box")}
    assert len(everything) == 2 * len(alone)


def test_blocks_of_classes_do_not_change_a_score(monkeypatch) -> None:
    arguments = (federated(11), detections(12))
    before = lvis_scores(*arguments, frequencies="rcffrc")
    monkeypatch.setattr("virtex.transfer.metrics.coco_precision.CLASSES_AT_ONCE", 1)
    assert lvis_scores(*arguments, frequencies="rcffrc") == before


def test_encoded_masks_hold_the_same_pixels() -> None:
    masks = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    encoded = encode_masks(masks)
    assert [mask["size"] for mask in encoded] == [[5, 7]] * 3
    np.testing.assert_array_equal([pixels(mask) for mask in encoded], masks)


def test_run_lengths_need_not_be_compressed() -> None:
    truth = list(scenes())
    assert all(isinstance(mask["counts"], list) for true in truth for mask in true.masks)
    packed = [
        replace(true, masks=encode_masks(np.array([pixels(mask) for mask in true.masks])))
        for true in truth
    ]
    found = detections(13)
    scores = coco_scores(truth, found, num_classes=NUM_CLASSES)
    assert coco_scores(packed, found, num_classes=NUM_CLASSES) == scores


def test_an_image_may_hold_more_masks_than_a_byte_counts() -> None:
    true = scenes()[0]
    rows = np.zeros(300, int)
    found = FoundObjects(
        true.boxes[rows], true.labels[rows], -np.arange(300.0), [true.masks[0]] * 300
    )
    assert coco_scores([true], [found], num_classes=NUM_CLASSES)["mask_AP"] == 1


def test_scoring_prints_nothing_and_needs_no_opencv() -> None:
    program = (
        "import sys, logging; sys.modules['cv2'] = None; logging.basicConfig(level=logging.INFO)\n"
        "from tests.transfer.metrics.test_detection_metrics import *\n"
        "coco_scores(scenes(), detections(0), num_classes=NUM_CLASSES)\n"
        "lvis_scores(scenes(), detections(0), frequencies='rcffrc')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_arguments_that_do_not_fit_are_errors() -> None:
    truth, found = list(scenes()), detections(14)
    with pytest.raises(ValueError, match="of 17 images and found objects of 16"):
        coco_scores(truth, found[:-1], num_classes=NUM_CLASSES)
    with pytest.raises(ValueError, match="no image"):
        voc_scores([], [], num_classes=NUM_CLASSES)
    with pytest.raises(ValueError, match=r"image 7 has labels \[3, 4, 5\]; 3 classes"):
        coco_scores(truth, found, num_classes=3)
    with pytest.raises(ValueError, match="true objects with masks and found objects with no masks"):
        coco_scores(truth, without_masks(found), num_classes=NUM_CLASSES)
    with pytest.raises(ValueError, match=r"frequencies are \['x'\]"):
        lvis_scores(truth, found, frequencies="rcfxrc")
    smaller = [replace(true, size=(SIZE, SIZE - 1)) for true in truth]
    with pytest.raises(ValueError, match=r"image 0 is \(192, 191\)"):
        coco_scores(smaller, found, num_classes=NUM_CLASSES)


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
    FoundObjects(**fitting)
    with pytest.raises(ValueError, match=message):
        FoundObjects(**{**fitting, **fields})
