import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import jpeg, message_of, write
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.lvis import LvisSource

URL = "http://images.cocodataset.org/{}"


def document() -> dict[str, Any]:
    """Two images, one of each of COCO's folders; the categories are not in the order of ids."""
    images = [
        {
            "id": 9, "coco_url": URL.format("val2017/000009.jpg"), "width": 8, "height": 6,
            "neg_category_ids": [5, 3], "not_exhaustive_category_ids": [],
        },
        {
            "id": 4, "coco_url": URL.format("train2017/000004.jpg"), "width": 8, "height": 6,
            "neg_category_ids": [], "not_exhaustive_category_ids": [7],
        },
    ]  # fmt: skip
    square = [[0, 0, 4, 0, 4, 4, 0, 4]]
    annotations = [
        {"id": number, "image_id": 4, "category_id": category, "bbox": box, "area": area,
         "segmentation": square}
        for number, category, box, area in ((1, 7, [1, 2, 3, 4], 11.5), (2, 3, [0, 0, 4, 4], 16))
    ]  # fmt: skip
    names = {7: ("otter", "c"), 3: ("aerosol_can", "f"), 5: ("zebra", "r")}
    categories = [
        {"id": category, "name": name, "frequency": frequency}
        for category, (name, frequency) in names.items()
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_lvis(root: Path, content: dict[str, Any]) -> Path:
    write(root / "annotations" / "lvis_v1_val.json", json.dumps(content))
    for name in ("val2017/000009.jpg", "train2017/000004.jpg"):
        write(root / name, jpeg())
    return root


def test_images_lie_in_both_of_cocos_folders(tmp_path: Path) -> None:
    source = LvisSource(write_lvis(tmp_path, document()), split="val")
    assert [example.image for example in source] == [
        tmp_path / "val2017" / "000009.jpg",
        tmp_path / "train2017" / "000004.jpg",
    ]


def test_an_image_lists_its_absent_and_incomplete_classes(tmp_path: Path) -> None:
    source = LvisSource(write_lvis(tmp_path, document()), split="val")
    assert source.categories == ("aerosol_can", "zebra", "otter")
    assert source.frequencies == ("f", "r", "c")
    empty, shown = source
    assert empty.annotated_size == shown.annotated_size == (6, 8)
    assert (empty.labels, empty.absent_labels, empty.incomplete_labels) == ((), (0, 1), ())
    assert (shown.labels, shown.absent_labels, shown.incomplete_labels) == ((0, 2), (), (2,))
    assert [source.labels(index) for index in (0, 1, -1)] == [(), (0, 2), (0, 2)]
    assert shown.box_labels == (2, 0)
    assert shown.boxes is not None
    assert shown.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 4, 4]]
    assert shown.areas is not None
    assert shown.areas.tolist() == [11.5, 16]
    assert shown.masks[0] == [[0, 0, 4, 0, 4, 4, 0, 4]]
    assert shown.crowd == ()


def test_a_pickled_source_gives_the_same_examples(tmp_path: Path) -> None:
    source = LvisSource(write_lvis(tmp_path, document()), split="val")
    again = pickle.loads(pickle.dumps(source))
    assert [example.absent_labels for example in again] == [(0, 1), ()]
    assert again.frequencies == source.frequencies


def test_images_alone_are_read_without_objects(tmp_path: Path) -> None:
    content = {**document(), "annotations": []}
    root = write_lvis(tmp_path, content)
    config = SourceConfig(source="lvis", root=root, train_split="val", val_split="other")
    source = open_source(config, split="train", needs=Needs())
    assert source is not None
    assert [example.boxes for example in source] == [None, None]
    message = message_of(open_source, config, split="train", needs=Needs(objects=True))
    assert "lvis_v1_val.json: no objects are listed" in message


def test_identity_counts_and_hashes(tmp_path: Path) -> None:
    before = LvisSource(write_lvis(tmp_path, document()), split="val").identity()
    assert (before["source"], before["images"], before["instances"]) == ("lvis", 2, 2)
    other = document()
    other["images"][0]["neg_category_ids"] = [5]
    assert LvisSource(write_lvis(tmp_path, other), split="val").identity() != before


def test_a_missing_split_is_named_with_those_there_are(tmp_path: Path) -> None:
    message = message_of(LvisSource, write_lvis(tmp_path, document()), split="train")
    assert "lvis_v1_train.json is missing; found: lvis_v1_val.json." in message


def spoiled(key: str, **changes: Any) -> dict[str, Any]:
    content = document()
    content[key][0].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (spoiled("images", coco_url=None), '"images" without "id" or "coco_url": 1'),
        (spoiled("images", coco_url="http://x/../a.jpg"), "images outside"),
        (spoiled("images", coco_url="val2017/8.jpg"), "listed but absent: 1 (val2017/8.jpg)"),
        (spoiled("images", neg_category_ids=[6]), '"neg_category_ids" is missing or broken: 1'),
        (spoiled("images", neg_category_ids=[[]]), '"neg_category_ids" is missing or broken: 1'),
        (
            spoiled("images", not_exhaustive_category_ids=None),
            '"not_exhaustive_category_ids" is missing or broken: 1 (image 9: None)',
        ),
        (spoiled("categories", frequency="x"), "not r, c or f: 1 (otter: x)"),
        (spoiled("categories", frequency=[]), "not r, c or f: 1 (otter: [])"),
        (spoiled("annotations", category_id=8), 'not under "categories": 1'),
        (spoiled("annotations", bbox=[1, 2, 30, 4]), "1 of its 2 objects are bad"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: dict[str, Any], part: str) -> None:
    assert part in message_of(LvisSource, write_lvis(tmp_path, content), split="val")
