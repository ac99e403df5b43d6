"""COCO's format by file and folder, beside COCO's layout."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.sources.layouts import coco_documents, contents, jpeg, message_of, write, write_coco
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.coco import CocoSource
from virtex.errors import ConfigError

CAPTIONS = {"7": ("two dogs",), "3": ("a cat", "a cat sleeps"), "5": ("an empty field",)}
BOXES = Needs(objects=True)


def write_file(path: Path, images: Path, *, kind: int = 0) -> Path:
    """Write captions (0) or instances (1), and the images below another folder."""
    document = coco_documents()[kind]
    for image in document["images"]:
        write(images / image["file_name"], jpeg(image["id"]))
    return write(path, json.dumps(document))


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("captions.json", "."),
        ("captions.json", "images"),
        ("captions.json", "data/images"),
        ("annotations/captions_train2017.json", "train2017"),
        ("annotations/my captions.json", "photos [1]"),
    ],
)
def test_a_file_is_read_with_the_images_near_it(tmp_path: Path, file: str, images: str) -> None:
    path = write_file(tmp_path / file, tmp_path / images)
    source = CocoSource(path, split="train")
    assert contents(source) == CAPTIONS
    assert source[0].image == tmp_path / images / "007.jpg"
    assert source.identity()["root"] == str(path)


def test_a_split_s_own_folder_comes_before_others(tmp_path: Path) -> None:
    write_coco(tmp_path, "other")
    path = write_coco(tmp_path, "train2017") / "annotations" / "captions_train2017.json"
    assert CocoSource(path, split="train")[0].image == tmp_path / "train2017" / "007.jpg"


@pytest.mark.parametrize("images", ["elsewhere", "elsewhere/train2017", "elsewhere/a/b"])
def test_the_named_folder_holds_the_images(tmp_path: Path, images: str) -> None:
    path = write_file(tmp_path / "a" / "captions_train2017.json", tmp_path / images)
    write_file(path, tmp_path / "a")
    source = CocoSource(path, split="", image_root=tmp_path / "elsewhere")
    assert source[0].image == tmp_path / images / "007.jpg"


def test_the_layout_s_images_may_lie_elsewhere(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "a")
    (root / "train2017").rename(tmp_path / "train2017")
    source = CocoSource(root, split="train", image_root=tmp_path)
    assert source[0].image == tmp_path / "train2017" / "007.jpg"
    assert source.identity()["image_root"] == str(tmp_path / "train2017")


def test_absent_images_are_named_below_the_named_folder(tmp_path: Path) -> None:
    path = write_file(tmp_path / "captions.json", tmp_path)
    message = message_of(CocoSource, path, split="", image_root=tmp_path / "gone")
    assert f"{tmp_path / 'gone'}, is missing" in message
    write(tmp_path / "empty" / "x.txt", "x")
    message = message_of(CocoSource, path, split="", image_root=tmp_path / "empty")
    assert "images listed but absent: 3" in message


def test_training_and_validation_are_two_files_and_one_folder(tmp_path: Path) -> None:
    train = write_file(tmp_path / "captions_train2017.json", tmp_path / "images" / "train2017")
    val = write_file(tmp_path / "captions_val2017.json", tmp_path / "images" / "val2017")
    config = SourceConfig("coco", root=train, image_root=tmp_path / "images")
    assert open_source(config, split="val") is None
    config = replace(config, val_root=val)
    for split in ("train", "val"):
        source = open_source(config, split=split)
        assert source is not None
        assert source[0].image == tmp_path / "images" / f"{split}2017" / "007.jpg"


def test_instances_have_a_file_of_their_own(tmp_path: Path) -> None:
    write_coco(tmp_path)
    folder = tmp_path / "annotations"
    for name in ("instances_train2017.json", "captions_train2017.json"):
        source = open_source(SourceConfig("coco", root=folder / name), split="train", needs=BOXES)
        assert source is not None
        assert source[0].boxes is not None
    both = Needs(captions=True, objects=True)
    config = SourceConfig("coco", root=folder / "captions_train2017.json")
    source = open_source(config, split="train", needs=both)
    assert source is not None
    assert (source.categories, contents(source)) == (("dog", "bicycle"), CAPTIONS)
    objects = write_file(tmp_path / "mine.json", tmp_path / "train2017", kind=1)
    source = open_source(SourceConfig("coco", root=objects), split="train", needs=BOXES)
    assert source is not None
    assert len(source[0].box_labels) == 2


def test_a_file_has_no_splits_to_name(tmp_path: Path) -> None:
    config = SourceConfig("coco", root=tmp_path / "a.json", train_split="x", val_split="y")
    with pytest.raises(ConfigError) as error:
        open_source(config, split="train")
    assert "--data.train_split x means nothing to the file" in str(error.value)
    assert "--data.val_split y means nothing to the file" in str(error.value)
    config = replace(config, train_split=None, val_split=None)
    assert "There is no such file" in message_of(open_source, config, split="train")
