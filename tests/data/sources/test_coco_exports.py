"""Files in COCO's format by other tools: without masks, with other ids, numbers and paths."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import coco_documents, jpeg, message_of, write
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.lvis import LvisSource

BOXES = Needs(objects=True)
MASKS = Needs(objects=True, masks=True)
Document = dict[str, Any]


def write_export(root: Path, change: Callable[[Document], object]) -> SourceConfig:
    """COCO's instances of layouts.py with sizes and areas, after a change."""
    _, document = coco_documents()
    for image in document["images"]:
        write(root / "train2017" / image["file_name"], jpeg(image["id"]))
        image.update(width=8, height=6)
    for row in document["annotations"]:
        row["area"] = 9.5
    change(document)
    write(root / "annotations" / "instances_train2017.json", json.dumps(document))
    return SourceConfig(source="coco", root=root)


def opened(config: SourceConfig, needs: Needs) -> Source:
    source = open_source(config, split="train", needs=needs)
    assert source is not None
    return source


def nothing(document: Document) -> None:
    pass


def each(kind: str, **changes: Callable[[Any], Any]) -> Callable[[Document], None]:
    """A change of fields of each object in a list."""

    def change(document: Document) -> None:
        for row in document[kind]:
            row.update({name: function(row.get(name)) for name, function in changes.items()})

    return change


def both(*changes: Callable[[Document], object]) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        for one in changes:
            one(document)

    return change


def boxes_of(source: Source) -> list[Any]:
    return [
        (one.image_id, None if one.boxes is None else one.boxes.tolist(), one.box_labels, one.crowd)
        for one in source
    ]


WITHOUT_MASKS = {
    "empty": each("annotations", segmentation=lambda _: []),
    "null": each("annotations", segmentation=lambda _: None),
    "empty polygons": each("annotations", segmentation=lambda _: [[]]),
    "boxes": each("annotations", segmentation=lambda _: [[1, 1, 3, 3]]),
    "absent": lambda document: [row.pop("segmentation") for row in document["annotations"]],
    "some empty": lambda document: document["annotations"][0].update(segmentation=[]),
    "some text": lambda document: document["annotations"][0].update(segmentation="none"),
    "too short": lambda document: document["annotations"][2].update(
        segmentation={"size": [6, 8], "counts": [3, 4]}
    ),
    "other size": each("annotations", segmentation=lambda _: {"size": [8, 6], "counts": [40, 8]}),
    "far away": each("annotations", segmentation=lambda _: [[1, 1, 1e8, 1, 1e8, 1e8]]),
    "endless": lambda document: document["annotations"][0].update(
        segmentation=[[0, 0, 8, 0, 8, 6, 0, 6] * 90_000]
    ),
}


@pytest.mark.parametrize("change", WITHOUT_MASKS.values(), ids=WITHOUT_MASKS)
def test_an_export_without_masks_serves_every_task_but_those_that_learn_masks(
    tmp_path: Path, change: Callable[[Document], object]
) -> None:
    whole = opened(write_export(tmp_path / "whole", nothing), BOXES)
    config = write_export(tmp_path / "export", change)
    source = opened(config, BOXES)
    assert boxes_of(source) == boxes_of(whole)
    assert "dropped_objects" not in source.identity()
    assert [one.masks for one in source] == [()] * 3
    assert [one.labels for one in opened(config, Needs(labels=True))] == [(0, 1), (0, 1), ()]
    message = message_of(open_source, config, split="train", needs=MASKS)
    assert "annotation 1" in message
    assert "masks" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("mask", "part"),
    [
        ({"size": [6, 8], "counts": [3, 4]}, "(annotation 10: run lengths of 7 pixels, not 6 x 8)"),
        ({"size": [6, 8], "counts": [50, -2]}, "(annotation 10: a negative run length)"),
        ({"size": [6, 8], "counts": "\x01"}, "(annotation 10: compressed run lengths with letters"),
        (
            {"size": [8, 6], "counts": [40, 8]},
            "masks of another size than their image: 1",
        ),
        ([[1, 1, 25, 1, 25, 5]], "masks far outside their image: 1 (annotation 10 of image 3"),
        ([[1, 1, 5, 1, 5, 1e300]], "masks far outside their image: 1 (annotation 10 of image 3"),
        ([[0, 0, 8, 0, 8, 6, 0, 6] * 90_000], "masks with far too long an outline: 1 (annotation"),
    ],
)
def test_masks_that_cannot_be_drawn_are_named_before_training(
    tmp_path: Path, mask: Any, part: str
) -> None:
    config = write_export(
        tmp_path, lambda document: document["annotations"][0].update(segmentation=mask)
    )
    assert part in message_of(open_source, config, split="train", needs=MASKS)


OTHER_FORMS = {
    "float ids": both(
        each("images", id=float),
        each("annotations", image_id=float, category_id=float),
        each("categories", id=float),
    ),
    "image ids as text": each("images", id=str),
    "references as text": each("annotations", image_id=str, category_id=str),
    "category ids as text": each("categories", id=str),
    "boxes as text": each("annotations", bbox=lambda box: [f"{number}" for number in box]),
    "sizes as text": each("images", width=str, height=str),
    "no annotation ids": lambda document: [row.pop("id") for row in document["annotations"]],
    "one annotation id": each("annotations", id=lambda _: 0),
    "crowd as text": each("annotations", iscrowd=str),
    "crowd as truth": each("annotations", iscrowd=bool),
    "area 0": each("annotations", area=lambda _: 0),
    "area NaN": each("annotations", area=lambda _: float("nan")),
    "an area missing": lambda document: document["annotations"][1].pop("area"),
    "back-slashes": each("images", file_name=lambda name: f".\\{name}"),
    "the folder's name": each("images", file_name=lambda name: f"train2017/{name}"),
    "both": each("images", file_name=lambda name: f"train2017\\{name} "),
}


@pytest.mark.parametrize("change", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_other_forms_of_the_same_data_are_read_alike(
    tmp_path: Path, change: Callable[[Document], object]
) -> None:
    sources = [
        opened(write_export(tmp_path / name, one), MASKS)
        for name, one in (("whole", nothing), ("export", change))
    ]
    whole, source = sources
    assert boxes_of(source) == boxes_of(whole)
    assert source.categories == whole.categories
    assert [one.masks for one in source] == [one.masks for one in whole]
    assert all(isinstance(one.image, Path) and one.image.is_file() for one in source)


def test_areas_that_are_not_used_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_export(tmp_path, lambda document: document["annotations"][1].pop("area"))
    with caplog.at_level(logging.WARNING, "virtex"):
        source = opened(config, BOXES)
    assert source[0].areas is None
    assert '"area" is not used, since it is missing or not a number in 1 of 4' in caplog.text


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            each("annotations", iscrowd=lambda _: "maybe"),
            '"iscrowd" is not 0 or 1: 4 (annotation 11: maybe',
        ),
        (each("annotations", iscrowd=lambda _: [1]), '"iscrowd" is not 0 or 1: 4'),
        (each("categories", name=lambda _: None), '"categories" without "id" or "name": 2'),
        (each("images", id=lambda _: float("nan")), '"images" without "id" or "file_name": 3'),
        (each("images", id=lambda _: True), '"images" without "id" or "file_name": 3'),
        (each("images", file_name=lambda _: "..\\..\\x.jpg"), "images listed but absent: 3"),
        (each("annotations", bbox=lambda _: ["0x10"] * 4), '"bbox" is missing or broken: 4'),
        (each("annotations", bbox=lambda _: ["1", 2, 3, 4]), '"bbox" is missing or broken: 4'),
        (each("annotations", bbox=lambda _: ["nan"] * 4), '"bbox" is missing or broken: 4'),
    ],
)
def test_what_is_not_plain_is_named(
    tmp_path: Path, change: Callable[[Document], object], part: str
) -> None:
    config = write_export(tmp_path, change)
    assert part in message_of(open_source, config, split="train", needs=BOXES)


def test_categories_with_other_ids_than_numbers_come_in_the_order_of_their_text(
    tmp_path: Path,
) -> None:
    names = {18: "b", 2: "a"}

    def change(document: Document) -> None:
        for row in document["categories"]:
            row["id"] = names[row["id"]]
        for row in document["annotations"]:
            row["category_id"] = names[row["category_id"]]

    assert opened(write_export(tmp_path, change), BOXES).categories == ("dog", "bicycle")


def test_lvis_with_ids_as_text_is_read_alike(tmp_path: Path) -> None:
    from tests.data.sources.test_lvis import document, write_lvis

    whole = LvisSource(write_lvis(tmp_path / "a", document()), split="val")
    changed = document()
    for row in changed["images"]:
        row["neg_category_ids"] = [str(one) for one in row["neg_category_ids"]]
    for row in changed["categories"]:
        row["id"] = float(row["id"])
    other = LvisSource(write_lvis(tmp_path / "b", changed), split="val")
    assert (other.categories, other.frequencies) == (whole.categories, whole.frequencies)
    assert [one.absent_labels for one in other] == [one.absent_labels for one in whole]
    assert replace(other[0], image=b"").boxes is not None
