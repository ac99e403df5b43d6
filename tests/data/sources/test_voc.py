import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.sources.layouts import jpeg, message_of, real_data, write
from virtex.data.sources.voc import VocSource
from virtex.data.sources.voc_annotations import parse_annotation
from virtex.errors import DataError

MARKS = {"cat": {"000001": 1, "000002": -1}, "train": {"000001": 0, "000002": -1}}
CAT = "<object><name>cat</name>{box}</object>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def annotation(*objects: str) -> str:
    return f"<annotation>{''.join(objects)}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    voc = tmp_path / "VOCdevkit" / "VOC2007"
    for split in ("train", "val"):
        write(voc / f"ImageSets/Main/{split}.txt", "000001\n000002\n")
        for name, marks in MARKS.items():
            lines = [f"{image_id} {mark:2d}" for image_id, mark in marks.items()]
            write(voc / f"ImageSets/Main/{name}_{split}.txt", "\n".join(lines))
    for image_id in ("000001", "000002"):
        write(voc / f"JPEGImages/{image_id}.jpg", jpeg())
    cat = CAT.format(box=BOX.format(1, 2, 5, 6))
    train = (
        "<object><name>train</name><difficult>1</difficult>"
        + f"<part><name>cab</name>{BOX.format(9, 9, 10, 10)}</part>"
        + BOX.format(3, 1.5, 8, 6)
        + "</object>"
    )
    write(voc / "Annotations/000001.xml", annotation(cat, train))
    write(voc / "Annotations/000002.xml", annotation())
    return voc


def write_2012(root: Path) -> Path:
    """A VOC2012 beside VOC2007, with one image; the devkit."""
    voc = root.with_name("VOC2012")
    for split in ("train", "trainval"):
        write(voc / f"ImageSets/Main/{split}.txt", "2008_000001\n")
        for name, mark in (("cat", -1), ("train", 1)):
            write(voc / f"ImageSets/Main/{name}_{split}.txt", f"2008_000001 {mark}\n")
    write(voc / "JPEGImages/2008_000001.jpg", jpeg())
    train = f"<object><name>train</name>{BOX.format(1, 1, 4.5, 6)}</object>"
    write(voc / "Annotations/2008_000001.xml", annotation(train))
    return root.parent


def spoil(root: Path, name: str, content: str) -> None:
    write(root / name, content)


def test_labels_and_difficult_ones_come_from_the_class_files(root: Path) -> None:
    source = VocSource(root, split="train")
    assert source.categories == ("cat", "train")
    assert [example.labels for example in source] == [(0,), ()]
    assert [example.ignored_labels for example in source] == [(1,), ()]
    assert source[0].image == root / "JPEGImages" / "000001.jpg"
    assert source[0].boxes is None
    assert source[0].difficult == ()
    assert [source.labels(index) for index in range(2)] == [(0,), ()]


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_the_root_may_be_any_of_three_folders(root: Path, levels: int) -> None:
    start = [root, *root.parents][levels]
    assert VocSource(start, split="val").root == root


def test_boxes_count_from_zero_and_end_after_their_last_pixel(root: Path) -> None:
    source = VocSource(root, split="train", with_boxes=True)
    first, second = source
    assert first.boxes is not None
    assert first.boxes.tolist() == [[0, 1, 5, 6], [2, 0.5, 8, 6]]
    assert first.box_labels == (0, 1)
    assert first.difficult == (False, True)
    assert second.difficult == ()
    assert second.boxes is not None
    assert second.boxes.shape == (0, 4)


def test_a_pickled_source_gives_the_same_examples(root: Path) -> None:
    source = VocSource(root, split="train", with_boxes=True)
    again = pickle.loads(pickle.dumps(source))
    assert [example.labels for example in again] == [example.labels for example in source]
    np.testing.assert_array_equal(again[0].boxes, source[0].boxes)


def test_identity_changes_with_any_mark(root: Path) -> None:
    before = VocSource(root, split="train").identity()
    assert (before["images"], before["classes"], before["split"]) == (2, 2, "train")
    spoil(root, "ImageSets/Main/cat_train.txt", "000001 1\n000002 1\n")
    assert VocSource(root, split="train").identity()["sha256"] != before["sha256"]


def test_identity_changes_with_any_box(root: Path) -> None:
    devkit = write_2012(root)
    joined = "2007_train+2012_train"
    identities = [VocSource(devkit, split=joined).identity()]
    assert "boxes_sha256" not in identities[0]
    dog = CAT.format(box=BOX.format(1, 1, 4.5, 6))
    train = dog.replace("cat", "train")
    difficult = train.replace("<bnd", "<difficult>1</difficult><bnd")
    for content in (train, train.replace("4.5", "4"), dog, difficult):
        write(devkit / "VOC2012/Annotations/2008_000001.xml", annotation(content))
        identities.append(VocSource(devkit, split=joined, with_boxes=True).identity())
    write(root / "Annotations/000002.xml", annotation(difficult))  # from image to image
    write(devkit / "VOC2012/Annotations/2008_000001.xml", annotation())
    identities.append(VocSource(devkit, split=joined, with_boxes=True).identity())
    assert [one.get("boxes") for one in identities] == [None, 3, 3, 3, 3, 3]
    assert len({one.get("boxes_sha256") for one in identities}) == 6


@pytest.mark.parametrize("split", ["train", "2007_train", "2012_train"])
def test_identity_names_the_split_and_its_year(root: Path, split: str) -> None:
    assert VocSource(write_2012(root), split=split).identity()["split"] == split


def test_a_missing_root_is_named_alone(tmp_path: Path) -> None:
    message = message_of(VocSource, tmp_path / "nowhere", split="test")
    assert message.endswith("nowhere is no folder. Name VOCdevkit with --data.root.")


def test_a_missing_split_is_named_with_those_there_are(root: Path) -> None:
    message = message_of(VocSource, root, split="test")
    assert "test.txt is missing; splits found: train, val." in message
    assert "--data.val_split" in message


def test_all_problems_of_the_lists_are_reported_at_once(root: Path) -> None:
    spoil(root, "ImageSets/Main/train.txt", "000001\n000002\n000002\n000009\n../x\n")
    spoil(root, "ImageSets/Main/cat_train.txt", "000001 1\n000002 2\n")
    spoil(root, "ImageSets/Main/dog_val.txt", "000001 1\n000002 1\n")
    message = message_of(VocSource, root, split="train")
    for part in (
        "1 images are listed more than once.",
        "images listed but absent: 1 (000009.jpg). Put them into",
        "images whose name is a path: 1 (../x)",
        '"image 1": 1 (cat_train.txt: 000002 2)',
        "class files that list other images: 2 (cat_train.txt, train_train.txt)",
        "class files missing: 1 (dog_train.txt). Unpack",
    ):
        assert part in message


def test_a_split_without_class_files_is_a_problem(root: Path) -> None:
    spoil(root, "ImageSets/Main/test.txt", "000001\n")
    message = message_of(VocSource, root, split="test")
    assert "class files missing: 2 (cat_test.txt, train_test.txt)" in message


def test_years_are_joined_in_the_order_they_are_named(root: Path) -> None:
    devkit = write_2012(root)
    source = VocSource(devkit, split="2007_train+2012_trainval", with_boxes=True)
    assert [example.image_id for example in source] == ["000001", "000002", "2008_000001"]
    assert [example.labels for example in source] == [(0,), (), (1,)]
    assert [source.labels(index) for index in range(3)] == [(0,), (), (1,)]
    assert source[0].image == root / "JPEGImages" / "000001.jpg"
    last = source[-1]
    assert last.image == devkit / "VOC2012" / "JPEGImages" / "2008_000001.jpg"
    assert last.boxes is not None
    assert last.boxes.tolist() == [[0, 0, 4.5, 6]]
    identity = source.identity()
    assert (identity["split"], identity["root"]) == ("2007_train+2012_trainval", str(devkit))
    assert identity["sha256"] != VocSource(devkit, split="2007_train").identity()["sha256"]


def test_a_split_without_a_year_is_that_of_2007_or_of_the_folder_named(root: Path) -> None:
    devkit = write_2012(root)
    ids = [
        VocSource(place, split=split)[0].image_id
        for place, split in (
            (devkit, "train"),
            (devkit / "VOC2012", "train"),
            (devkit / "VOC2012", "2012_train"),
            (devkit.parent, "2012_train"),
        )
    ]
    assert ids == ["000001", "2008_000001", "2008_000001", "2008_000001"]


def test_a_missing_year_is_never_replaced_by_another(root: Path) -> None:
    message = message_of(VocSource, root, split="2012_train")
    assert "VOC2012/ImageSets/Main/train.txt is missing" in message.replace("\\", "/")
    assert "2007_trainval+2012_trainval" in message


def test_years_must_have_other_images_and_the_same_classes(root: Path) -> None:
    devkit = write_2012(root)
    message = message_of(VocSource, devkit, split="train+2007_val")
    assert "images in more than one of the splits: 2 (000001, 000002)" in message
    for split in ("train", "trainval"):
        spoil(devkit / "VOC2012", f"ImageSets/Main/dog_{split}.txt", "2008_000001 1\n")
    message = message_of(VocSource, devkit, split="train+2012_train")
    assert "have different classes: dog only in one of them" in message


SIZE = "<size><width>8</width><height>6</height></size>"


@pytest.mark.parametrize(
    ("box", "is_bad"),
    [((1, 1, 8, 6), False), ((-1, -1, 10, 8), False), ((-2, 1, 8, 6), True), ((1, 1, 11, 6), True),
     ((1, 1, 8, 9), True), ((9, 1, 10, 6), True), ((8, 6, 8, 6), False)],
)  # fmt: skip
def test_a_box_outside_its_image_is_bad(
    root: Path, box: tuple[float, ...], is_bad: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cat = CAT.format(box=BOX.format(*box))
    spoil(root, "Annotations/000002.xml", annotation(SIZE, cat))
    if is_bad:
        message = message_of(VocSource, root, split="train", with_boxes=True)
        assert "1 of its 3 objects are bad" in message
        assert "1 (000002.xml: cat (" in message
    source = VocSource(root, split="train", with_boxes=True, bad_object_limit=0.4)
    assert len(source[1].box_labels) == 1 - is_bad
    assert len(source[0].box_labels) == 2
    assert ("were dropped" in caplog.text) == is_bad
    assert source.identity().get("dropped_objects", 0) == is_bad


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (SIZE, (6, 8)),
        ("", None),
        ("<size><width>0</width><height>0</height></size>", None),  # labelImg's for unknown
    ],
)
def test_an_image_has_the_size_of_its_annotations(
    root: Path, size: str, expected: tuple[int, int] | None
) -> None:
    spoil(root, "Annotations/000002.xml", annotation(size, CAT.format(box=BOX.format(1, 2, 5, 6))))
    source = VocSource(root, split="train", with_boxes=True)
    assert [example.annotated_size for example in source] == [None, expected]


def test_annotations_without_any_object_are_a_problem(root: Path) -> None:
    spoil(root, "Annotations/000001.xml", annotation())
    message = message_of(VocSource, root, split="train", with_boxes=True)
    assert "No objects are annotated." in message


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (annotation("<size><width>0</width><height>6</height></size>"), "a <size> whose height"),
        ("<annotation>", "annotation files that are broken: 1 (000001.xml: no element found"),
        (annotation(CAT.format(box="")), "a cat whose corners are"),
        (annotation(CAT.format(box=BOX.format(1, 2, "x", 4))), "could not convert"),
        (annotation(CAT.format(box=BOX.format("nan", 2, 3, 4))), "a cat whose corners are"),
        (annotation(CAT.format(box=BOX.format(1, 2, 3, 1e9))), "a cat whose corners are"),
        (
            annotation(CAT.format(box=BOX.format(5, 2, 3, 4))),
            "a cat whose box has its corners exchanged",
        ),
        (annotation("<object/>"), "an object without a name"),
        (annotation(CAT.format(box=BOX.format("1_0", 2, 30, 4))), "a number 1_0"),
        (annotation(CAT.format(box=BOX.format("1" * 5000, 2, 30, 4))), "a cat whose corners are"),
        ("<a>" * 10_000 + "</a>" * 10_000, "1 (000001.xml: a <a>, not an <annotation>)"),
        (annotation("<object><name>fox</name>" + BOX.format(1, 1, 2, 2) + "</object>"), "1 (fox)"),
    ],
)
def test_broken_annotations_are_named(root: Path, content: str, part: str) -> None:
    spoil(root, "Annotations/000001.xml", content)
    assert part in message_of(VocSource, root, split="train", with_boxes=True)
    assert len(VocSource(root, split="train")) == 2


def test_missing_annotations_are_named(root: Path) -> None:
    (root / "Annotations/000002.xml").unlink()
    message = message_of(VocSource, root, split="train", with_boxes=True)
    assert "annotation files missing: 1 (000002.xml). Unpack them into" in message


@pytest.mark.parametrize("encoding", ["hex", "rot13", "klingon", "zlib", "undefined", "utf-7"])
def test_an_encoding_that_is_none_of_text_is_named_with_its_file(root: Path, encoding: str) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding}"?>{annotation()}'
    spoil(root, "Annotations/000001.xml", declared)
    message = message_of(VocSource, root, split="train", with_boxes=True)
    assert "annotation files that are broken: 1 (000001.xml: " in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_in_any_encoding(encoding: str) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxx"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'
    with pytest.raises(ValueError, match="document type"):
        parse_annotation(bomb.encode(encoding))


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=30), place=st.integers(0, 200))
def test_corrupt_annotations_raise_only_a_data_error(
    wild_root: Path, noise: bytes, place: int
) -> None:
    good = annotation(CAT.format(box=BOX.format(1, 2, 3, 4))).encode()
    (wild_root / "Annotations/000002.xml").write_bytes(good[:place] + noise + good[place + 5 :])
    try:
        source = VocSource(wild_root, split="train", with_boxes=True)
    except DataError as error:
        parts = ("000002.xml", "classes of objects", "No objects are annotated")
        assert any(part in str(error) for part in parts)  # noqa: PT017
    else:
        assert source[0].boxes is not None


@pytest.fixture(scope="module")
def wild_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wild")
    for name, content in {
        "ImageSets/Main/train.txt": "000002",
        "ImageSets/Main/cat_train.txt": "000002 1",
        "JPEGImages/000002.jpg": "",
    }.items():
        write(root / name, content)
    (root / "Annotations").mkdir()
    return root


def test_voc2007_has_its_classes_images_and_difficult_boxes() -> None:
    root = real_data("voc2007")
    source = VocSource(root, split="train", with_boxes=True)
    assert (len(source), len(source.categories)) == (2500, 20)
    assert source.categories[0] == "aeroplane"
    for example in source:
        difficult = example.difficult or (False,) * len(example.box_labels)
        # An image-level 0 stands for a class whose objects are all difficult.
        easy = {
            label
            for label, is_difficult in zip(example.box_labels, difficult, strict=True)
            if not is_difficult
        }
        assert easy <= set(example.labels)
        assert set(example.box_labels) - easy == set(example.ignored_labels)
