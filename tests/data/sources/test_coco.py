import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.sources.layouts import (
    ANY_TEXT,
    coco_documents,
    contents,
    jpeg,
    message_of,
    real_data,
    write,
    write_coco,
)
from virtex.data.sources.coco import CocoSource
from virtex.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path)


def rewrite(root: Path, kind: str, change: Any) -> None:
    """Change one of the annotation files."""
    path = root / "annotations" / f"{kind}_train2017.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_each_image_has_its_captions_in_the_order_of_the_file(root: Path) -> None:
    source = CocoSource(root, split="train2017")
    assert contents(source) == {
        "7": ("two dogs",),
        "3": ("a cat", "a cat sleeps"),
        "5": ("an empty field",),
    }
    assert source[1].image == root / "train2017" / "003.jpg"


def test_instances_give_labels_corners_masks_and_crowd(root: Path) -> None:
    source = CocoSource(root, split="train2017", with_instances=True)
    assert source.categories == ("dog", "bicycle")
    group, pair, nothing = source
    assert pair.labels == (0, 1)
    assert pair.box_labels == (1, 0)
    assert pair.boxes is not None
    assert pair.boxes.tolist() == [[1, 2, 4, 5], [0.5, 0, 2.5, 2]]
    assert pair.crowd == ()
    assert group.crowd == (False, True)
    assert nothing.labels == ()
    assert nothing.boxes is not None
    assert nothing.boxes.shape == (0, 4)


def test_an_image_has_the_size_of_its_annotations(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    document = json.loads(path.read_text())
    document["images"][1] |= {"width": 8, "height": 6}
    path.write_text(json.dumps(document))
    source = CocoSource(root, split="train", with_instances=True)
    assert [example.annotated_size for example in source] == [None, (6, 8), None]


def test_masks_come_back_as_the_file_gives_them(root: Path) -> None:
    _, instances = coco_documents()
    source = CocoSource(root, split="train2017", with_captions=False, with_instances=True)
    for example in source:
        given_masks = [
            one["segmentation"]
            for one in instances["annotations"]
            if str(one["image_id"]) == example.image_id
        ]
        assert list(example.masks) == given_masks


def test_train_stands_for_train2017_unless_there_is_a_train(root: Path) -> None:
    assert CocoSource(root, split="train").split == "train2017"
    write_coco(root, "train")
    assert CocoSource(root, split="train").split == "train"


def open_both(root: Path) -> CocoSource:
    return CocoSource(root, split="train2017", with_instances=True)


def test_images_that_the_instances_do_not_list_are_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_both(root)
    assert not caplog.messages  # an image that is listed may be without objects
    rewrite(root, "instances", lambda document: document["images"].pop())
    assert len(open_both(root)) == 3
    assert caplog.messages == [
        "1 of the images in captions_train2017.json and instances_train2017.json are listed by "
        "captions_train2017.json alone (5): they count as without objects"
    ]


def test_images_that_the_captions_do_not_list_are_counted_or_refused_if_they_have_objects(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def drop(image_id: int) -> None:
        def without(document: Any) -> None:
            document["images"] = [row for row in document["images"] if row["id"] != image_id]
            rows = document["annotations"]
            document["annotations"] = [row for row in rows if row["image_id"] != image_id]

        rewrite(root, "captions", without)

    drop(5)
    assert len(open_both(root)) == 2
    assert "listed by instances_train2017.json alone (5): they have no cap" in caplog.messages[0]
    drop(7)
    message = message_of(open_both, root)
    unlisted = "annotations of an image that captions_train2017.json lacks: 2 (image_id 7,"
    assert f"instances_train2017.json: {unlisted}" in message
    assert "not under" not in message


def test_images_alone_need_no_captions(root: Path) -> None:
    rewrite(root, "captions", lambda document: document["annotations"].clear())
    source = CocoSource(root, split="train", with_captions=False)
    assert [example.captions for example in source] == [(), (), ()]


def test_images_alone_may_be_listed_by_image_info(root: Path) -> None:
    write(root / "annotations" / "image_info_unlabeled2017.json", json.dumps(coco_documents()[0]))
    for number in (7, 3, 5):
        write(root / "unlabeled2017" / f"{number:03d}.jpg", jpeg())
    assert len(CocoSource(root, split="unlabeled", with_captions=False)) == 3


def test_a_pickled_source_gives_the_same_examples(root: Path) -> None:
    source = CocoSource(root, split="train", with_instances=True)
    again = pickle.loads(pickle.dumps(source))
    assert contents(again) == contents(source)
    assert [example.masks for example in again] == [example.masks for example in source]


def test_identity_counts_and_hashes_the_files(root: Path) -> None:
    before = CocoSource(root, split="train", with_instances=True).identity()
    assert (before["images"], before["captions"], before["instances"]) == (3, 4, 4)
    rewrite(root, "captions", lambda document: document["annotations"][0].update(caption="fox"))
    after = CocoSource(root, split="train", with_instances=True).identity()
    assert before["captions_sha256"] != after["captions_sha256"]
    assert before["instances_sha256"] == after["instances_sha256"]


def test_a_missing_file_is_named_with_those_that_are_there(root: Path) -> None:
    message = message_of(CocoSource, root, split="val")
    assert "captions_val.json" in message
    assert "captions_train2017.json" in message
    assert "--data.val_split" in message


def test_broken_json_is_reported_with_its_position(root: Path) -> None:
    path = root / "annotations" / "captions_train2017.json"
    path.write_text('{"images": [],\n "annotations": [}')
    message = message_of(CocoSource, root, split="train")
    assert "not valid JSON" in message
    assert "line 2 column 18" in message


def test_a_file_of_another_format_is_named(root: Path) -> None:
    write(root / "annotations" / "captions_train2017.json", "[1, 2]")
    message = message_of(CocoSource, root, split="train")
    assert 'captions_train2017.json has no list "images"' in message


def test_all_problems_of_a_captions_file_are_reported_at_once(root: Path) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["images"] += [
            {"id": 3, "file_name": "003.jpg"},
            {"id": 8, "file_name": "../secret.jpg"},
            {"id": 9, "file_name": "009.jpg"},
            {"file_name": "010.jpg"},
        ]
        document["annotations"] += [
            {"id": 4, "image_id": 77, "caption": "nobody"},
            {"id": 20, "image_id": 9, "caption": " "},
            {"id": 21, "image_id": 9, "caption": None},
            "text",
        ]

    rewrite(root, "captions", spoil)
    message = message_of(CocoSource, root, split="train")
    for part in (
        'entries of "images" without "id" or "file_name": 1 (',
        "image ids given more than once: 1 (3)",
        "images outside",
        "1 (../secret.jpg)",
        "images listed but absent: 1 (009.jpg). Put them into",
        "annotation ids given more than once: 1 (4). Make each id unique.",
        'not under "images": 1 (image_id 77)',
        "empty or not text: 2 (annotation 20 of image 9, annotation 21 of image 9)",
        "images without a caption: 1 (8). Write captions or remove the images.",
        'entries of "annotations" that are not objects: 1 (entry 7)',
    ):
        assert part in message


def test_a_missing_image_folder_is_one_problem(root: Path) -> None:
    (root / "train2017").rename(root / "elsewhere")
    message = message_of(CocoSource, root, split="train")
    assert "the folder of images" in message
    assert "absent" not in message


def test_no_images_are_a_problem(root: Path) -> None:
    write(root / "annotations" / "captions_train2017.json", '{"images": [], "annotations": []}')
    assert "lists no images" in message_of(CocoSource, root, split="train")


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("bbox", [1, 2, 3], '"bbox" is missing or broken: 1 (annotation 10: [1, 2, 3])'),
        ("bbox", [1, 2, 3, "x"], '"bbox" is missing or broken: 1'),
        ("bbox", [1, 2, -3, 4], '"bbox" is missing or broken: 1'),
        ("bbox", [1, 2, 3, 1e300], '"bbox" is missing or broken: 1'),
        ("bbox", [1, 2, 3, float("nan")], '"bbox" is missing or broken: 1'),
        ("category_id", 99, 'not under "categories": 1 (annotation 10: category_id 99)'),
        ("category_id", [], 'not under "categories": 1'),
        ("image_id", 99, 'not under "images": 1 (image_id 99)'),
        ("segmentation", [[1, 2, 3]], '"segmentation" is missing or broken: 1 (annotation 10)'),
        ("segmentation", [], '"segmentation" is missing or broken: 1'),
        ("segmentation", [[1, 2, 3, 10**400]], '"segmentation" is missing or broken: 1'),
        ("segmentation", {"size": [1]}, '"segmentation" is missing or broken: 1'),
    ],
)
def test_broken_objects_are_named(root: Path, field: str, value: Any, part: str) -> None:
    rewrite(root, "instances", lambda document: document["annotations"][0].update({field: value}))
    options = {"with_instances": True, "with_masks": True}
    message = message_of(CocoSource, root, split="train", **options)
    assert part in message


def test_objects_without_any_masks_are_fine(root: Path) -> None:
    def drop_masks(document: dict[str, Any]) -> None:
        for one in document["annotations"]:
            del one["segmentation"]

    rewrite(root, "instances", drop_masks)
    source = CocoSource(root, split="train", with_instances=True)
    assert [example.masks for example in source] == [(), (), ()]


WILD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from([10**400, "..", "a/b\0", "x" * 5000, -1, 1e308]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a JSON document."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places_in(value[key], (*path, key))


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """The document with `other` in one place."""
    if not path:
        return other
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], other)
    return value


@pytest.fixture(scope="module")
def wild_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("wild"))


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_wrong_value_anywhere_in_the_files_raises_only_a_data_error(
    wild_root: Path, data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, 1))
    document = coco_documents()[which]
    place = data.draw(st.sampled_from(list(places_in(document))))
    wild = replaced(document, place, data.draw(WILD))
    for kind, kept in zip(("captions", "instances"), coco_documents(), strict=True):
        is_wild = kind == ("captions", "instances")[which]
        path = wild_root / "annotations" / f"{kind}_train2017.json"
        path.write_text(json.dumps(wild if is_wild else kept))
    try:
        source = CocoSource(wild_root, split="train", with_instances=True, with_masks=True)
    except DataError as error:
        assert str(error).replace("\n", "").isprintable()  # noqa: PT017
    else:
        assert all(np.isfinite(example.boxes).all() for example in source)


@settings(max_examples=50, deadline=None)
@given(noise=st.binary(max_size=40))
def test_corrupt_bytes_raise_only_a_data_error(wild_root: Path, noise: bytes) -> None:
    (wild_root / "annotations" / "captions_train2017.json").write_bytes(noise)
    message_of(CocoSource, wild_root, split="train")


def test_json_nested_too_deep_is_a_data_error(root: Path) -> None:
    write(root / "annotations" / "captions_train2017.json", "[" * 100_000)
    assert "not valid JSON" in message_of(CocoSource, root, split="train")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"images": [], "images": [1], "annotations": []}', "the key images comes twice"),
        ('{"images": [{"id": 1' + "0" * 5000 + "}]}", "Exceeds the limit"),
        ('{"images": [' + '{"a": ' * 50_000, "recursion"),
    ],
)
def test_json_that_would_be_read_in_part_is_refused(root: Path, text: str, part: str) -> None:
    write(root / "annotations" / "captions_train2017.json", text)
    message = message_of(CocoSource, root, split="train")
    assert "captions_train2017.json is not valid JSON" in message
    assert part in message


@pytest.mark.parametrize(("split", "num_images"), [("train", 6000), ("val", 1000)])
def test_flickr8k_has_five_captions_an_image(split: str, num_images: int) -> None:
    source = CocoSource(real_data("flickr8k"), split=split)
    assert len(source) == num_images
    assert {len(example.captions) for example in source} == {5}


@pytest.mark.parametrize(("split", "num_images"), [("train", 80), ("val", 79)])
def test_coco_mini_equals_its_files(split: str, num_images: int) -> None:
    root = real_data("coco_mini")
    source = CocoSource(root, split=split, with_instances=True)
    assert (len(source), len(source.categories)) == (num_images, 80)
    rows = json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in rows["annotations"]:
        by_image.setdefault(str(row["image_id"]), []).append(row)
    for example in source:
        its_rows = by_image[example.image_id]
        assert list(example.masks) == [row["segmentation"] for row in its_rows]
        assert example.boxes is not None
        corners = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in its_rows)]
        np.testing.assert_allclose(example.boxes, corners, atol=1e-4)
