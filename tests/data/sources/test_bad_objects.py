import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sources.layouts import coco_documents, jpeg, message_of, real_data, write
from virtex.data.checks import Problems
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.bad_objects import OUTSIDE, box_faults, find_good_objects
from virtex.data.sources.coco import CocoSource
from virtex.data.sources.voc import VocSource

SIDES = st.floats(-10, 50, width=32)


def is_outside(box: list[float], height: float, width: float) -> bool:
    """As the documentation says it, one box at a time."""
    x1, y1, x2, y2 = box
    misses = x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height
    return misses or x1 < -2 or y1 < -2 or x2 > width + 2 or y2 > height + 2


@given(st.lists(st.lists(SIDES, min_size=4, max_size=4), min_size=1, max_size=9))
def test_faults_equal_the_oracles(boxes: list[list[float]]) -> None:
    sizes = np.full((len(boxes), 2), (30.0, 40.0))
    outside, flat = box_faults(np.asarray(boxes, np.float32), sizes).values()
    for box, found_outside, found_flat in zip(boxes, outside, flat, strict=True):
        assert found_flat == (box[2] <= box[0] or box[3] <= box[1])
        assert found_outside == (is_outside(box, 30, 40) and not found_flat)


def test_an_unknown_size_is_no_limit() -> None:
    boxes = np.asarray([[5, 5, 900, 900], [-9, 5, 9, 9]], np.float32)
    assert box_faults(boxes, np.full((2, 2), np.nan))[OUTSIDE].tolist() == [False, True]


@pytest.mark.parametrize(("limit", "is_allowed"), [(0.0, False), (0.019, False), (0.02, True)])
def test_more_bad_objects_than_the_limit_are_a_problem(
    limit: float, is_allowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    problems = Problems("x")
    faults = {"too red": np.arange(100) == 7, "too blue": np.arange(100) >= 99}
    with caplog.at_level(logging.WARNING, "virtex"):
        kept = find_good_objects(
            faults, "object {}".format, subject="x.json", limit=limit, problems=problems
        )
    assert np.flatnonzero(~kept).tolist() == [7, 99]
    counts = "2 of its 100 objects are bad"
    details = "too red: 1 (object 7); too blue: 1 (object 99)"
    said = caplog.text if is_allowed else problems.texts[0]
    assert counts in said
    assert details in said
    assert bool(problems.texts) != is_allowed


def write_instances(root: Path, **changes: Any) -> Path:
    """COCO's files of layouts.py, with sizes and areas, and one object changed."""
    captions, instances = coco_documents()
    for row in instances["annotations"]:
        row["area"] = 9.5
    for image in instances["images"]:
        image.update(width=8, height=6)
    instances["annotations"][0].update(changes)
    write(root / "annotations" / "instances_train2017.json", json.dumps(instances))
    for image in captions["images"]:
        write(root / "train2017" / image["file_name"], jpeg(image["id"]))
    return root


LINE = [0.1, 0.1, 2.3, 2.3, 4.4, 4.4]
BLANK = {"size": [6, 8], "counts": [48]}
BAD_OBJECTS = [
    ({"bbox": [1, 2, 0, 3]}, "boxes without area: 1 (annotation 10 of image 3: [1, 2, 0, 3])"),
    ({"bbox": [1, 2, 9.5, 3]}, f"{OUTSIDE}: 1 (annotation 10 of image 3"),
    ({"bbox": [1, 2, 3, 6.5]}, f"{OUTSIDE}: 1"),
    ({"bbox": [-2.5, 2, 4, 3]}, f"{OUTSIDE}: 1"),
    ({"segmentation": [LINE, [1, 1, 2, 2]]}, "masks without area: 1 (annotation 10"),
    ({"segmentation": BLANK}, "masks without area: 1"),
    ({"segmentation": {"size": [6, 8], "counts": "`1"}}, "masks without area: 1"),
    ({"area": 0}, '"area" of 0 or less: 1'),
]


@pytest.mark.parametrize(("changes", "part"), BAD_OBJECTS)
def test_each_kind_of_bad_object_is_named(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    root = write_instances(tmp_path, **changes)
    options = {"with_captions": False, "with_instances": True, "with_masks": True}
    message = message_of(CocoSource, root, split="train", **options)
    assert "instances_train2017.json: 1 of its 4 objects are bad" in message
    assert part in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(("changes", "part"), BAD_OBJECTS)
def test_the_other_objects_stay_as_they_are(
    tmp_path: Path, changes: dict[str, Any], part: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = (
        open_source(
            SourceConfig(source="coco", root=root, bad_object_limit=0.25),
            split="train",
            needs=Needs(objects=True, masks=True),
        )
        for root in (write_instances(tmp_path / "a"), write_instances(tmp_path / "b", **changes))
    )
    assert good is not None
    assert bad is not None
    assert part in caplog.text
    whole, left = good[1], bad[1]
    assert whole.boxes is not None
    assert left.boxes is not None
    assert left.boxes.tolist() == whole.boxes.tolist()[1:]
    assert left.masks == whole.masks[1:]
    assert (left.box_labels, left.labels, bad.labels(1)) == (whole.box_labels[1:], (0,), (0,))
    assert left.areas is not None
    assert left.areas.tolist() == [9.5]
    assert bad[0].masks == good[0].masks
    assert bad[0].crowd == good[0].crowd
    assert "dropped_objects" not in good.identity()
    assert (bad.identity()["instances"], bad.identity()["dropped_objects"]) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"bbox": [1, 2, 3]}, '"bbox" is missing or broken: 1'),
    ],
)
def test_broken_fields_are_no_bad_objects(
    tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    root = write_instances(tmp_path, **changes)
    message = message_of(CocoSource, root, split="train", with_captions=False, with_instances=True)
    assert part in message
    assert "are bad" not in message


@pytest.mark.parametrize("size", [{"width": 8}, {"width": 0, "height": 6}, {"width": "8"}])
def test_sizes_that_are_broken_are_named(tmp_path: Path, size: dict[str, Any]) -> None:
    root = write_instances(tmp_path)
    path = root / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    document["images"][0] = {"id": 7, "file_name": "007.jpg", **size}
    path.write_text(json.dumps(document))
    message = message_of(CocoSource, root, split="train", with_captions=False, with_instances=True)
    assert '"width" or "height" is missing or broken: 1 (image 7: ' in message


def test_no_objects_at_all_are_a_problem(tmp_path: Path) -> None:
    root = write_instances(tmp_path)
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    config = SourceConfig(source="coco", root=root)
    message = message_of(open_source, config, split="train", needs=Needs(objects=True))
    assert "instances_train2017.json: no objects are listed for these images" in message
    assert open_source(config, split="train", needs=Needs()) is not None


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_real_data_at_hand_hold_no_bad_object(
    split: str, caplog: pytest.LogCaptureFixture
) -> None:
    coco = CocoSource(
        real_data("coco_mini"),
        split=split,
        with_captions=False,
        with_instances=True,
        bad_object_limit=0.0,
    )
    VocSource(real_data("voc2007"), split=split, with_boxes=True, bad_object_limit=0.0)
    assert coco[0].areas is not None
    assert "dropped" not in caplog.text
