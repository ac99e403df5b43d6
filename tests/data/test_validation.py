"""Validation data that are trained on are refused, whatever the layout."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import coco_documents, jpeg, write, write_tar
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.validation import check_disjoint, check_validation
from virtex.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training and validation images in folders beside each other."""
    for name in ("train", "val"):
        write(tmp_path / name / "0.jpg", jpeg())
        write(tmp_path / name / "0.txt", "a dog")
        write_tar(tmp_path / name / "0.tar", {"0.jpg": jpeg(), "0.txt": "a dog"})
    write(tmp_path / "table.csv", "image,caption")
    (tmp_path / "link").symlink_to(tmp_path / "train")
    return tmp_path


def check(source: Any, root: Path, val_root: Path, **options: Any) -> None:
    check_validation(SourceConfig(source, root=root, val_root=val_root, **options))


@pytest.mark.parametrize("source", ["folder", "webdataset", "classes"])
def test_a_folder_is_not_trained_on_and_validated_on(folder: Path, source: str) -> None:
    train = folder / "train"
    for val in (train, folder / "link"):
        with pytest.raises(ConfigError, match=rf"in {val} are trained on\. Name .*val_share"):
            check(source, train, val)
    with pytest.raises(ConfigError, match=rf"are trained on, as all of {train}\."):
        check(source, train, train / "inner")
    with pytest.raises(ConfigError, match=rf"in {train} hold those of training, {train / 'b'}\."):
        check(source, train / "b", train)
    check(source, train, folder / "val")
    check(source, folder, folder)  # its train and val


@pytest.mark.parametrize("source", ["table", "coco"])
def test_a_file_is_not_trained_on_and_validated_on(folder: Path, source: str) -> None:
    table = folder / "table.csv"
    with pytest.raises(ConfigError, match=r"val_root .*table\.csv is trained on\."):
        check(source, table, table)
    check(source, table, folder / "other.csv")


def test_a_named_split_is_not_trained_on_and_validated_on(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is trained on"):
        check("coco", folder, folder, val_split="train")
    check("coco", folder, folder)


def check_opened(source: Any, root: Path, *, needs: Needs = Needs(), **options: Any) -> None:  # noqa: B008
    config = SourceConfig(source, root=root, **options)
    train, val = (open_source(config, split=split, needs=needs) for split in ("train", "val"))
    assert train is not None
    assert val is not None
    check_disjoint(train, val)


def write_classes(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, jpeg())
    return root


def test_images_below_two_roots_are_compared_by_their_real_path(tmp_path: Path) -> None:
    flat = write_classes(tmp_path / "flat", "cat/0.jpg", "cat/1.jpg")
    two = write_classes(tmp_path / "two", "train/cat/0.jpg", "val/cat/0.jpg")
    (tmp_path / "link").symlink_to(flat)
    links = tmp_path / "links" / "cat"
    links.mkdir(parents=True)
    (links / "other.jpg").symlink_to(flat / "cat" / "1.jpg")
    for val_root in (flat, tmp_path / "link"):
        with pytest.raises(ConfigError, match=r"^2 of the 2 validation images would be trained on"):
            check_opened("classes", flat, val_root=val_root)
    with pytest.raises(ConfigError, match=r"^1 of the 1 .*, such as .*flat/cat/1\.jpg\. Name"):
        check_opened("classes", flat, val_root=links.parent)
    with pytest.raises(ConfigError, match=r"two/train/cat/0\.jpg"):
        check_opened("classes", two / "train", val_root=two, val_split="train")
    check_opened("classes", two, val_root=two)
    check_opened("classes", flat, val_root=two)


def test_parts_of_one_folder_have_no_image_in_common(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(12)]
    folder = write_classes(tmp_path / "folder", *(f"cat/{name}.jpg" for name in names))
    write_tar(tmp_path / "shards" / "0.tar", {f"{name}.jpg": jpeg() for name in names})
    keep = write(tmp_path / "keep.txt", "cat/00.jpg\ncat/01.jpg\n")
    for source in ("classes", "folder"):
        check_opened(source, folder, val_share=0.5)
        with pytest.raises(ConfigError, match=r"^2 of the 12 validation images"):
            check_opened(source, folder, val_root=folder, keep=keep)
    check_opened("webdataset", tmp_path / "shards", val_share=0.5)
    table = write(tmp_path / "table.csv", "image\n" + "\n".join(f"cat/{n}.jpg" for n in names))
    check_opened("table", table, image_root=folder, val_share=0.5)
    some = write(tmp_path / "some.csv", "image\ncat/00.jpg\ncat/11.jpg\n")
    check_opened(
        "table", some, image_root=folder, val_root=write(tmp_path / "a.csv", "image\ncat/01.jpg")
    )
    with pytest.raises(ConfigError, match=r"^2 of the 2 .*cat/00\.jpg"):
        check_opened("table", table, image_root=folder, val_root=some)


def test_lists_of_one_folder_are_compared_by_file_name(tmp_path: Path) -> None:
    captions, _ = coco_documents()
    for image in captions["images"]:
        write(tmp_path / "images" / image["file_name"], jpeg())
    first = write(tmp_path / "first.json", json.dumps(captions))
    for row in captions["images"]:
        row["id"] = f"{row['id']}0"
    for row in captions["annotations"]:
        row["image_id"] = f"{row['image_id']}0"
    other = write(tmp_path / "other.json", json.dumps(captions))
    with pytest.raises(ConfigError, match=r"^3 of the 3 validation images"):
        check_opened("coco", first, val_root=other, image_root=tmp_path / "images")


@pytest.fixture
def voc2012(tmp_path: Path) -> Path:
    """VOC2012 with an image in train and one in val, both in trainval; VOC2007 with others."""
    for year, numbers in (("2007", ("3", "4")), ("2012", ("1", "2"))):
        voc = tmp_path / f"VOC{year}"
        for split, ids in (("train", numbers[:1]), ("val", numbers[1:]), ("trainval", numbers)):
            write(voc / f"ImageSets/Main/{split}.txt", "\n".join(ids))
            write(voc / f"ImageSets/Main/cat_{split}.txt", "\n".join(f"{one} 1" for one in ids))
        for one in numbers:
            write(voc / f"JPEGImages/{one}.jpg", jpeg())
    return tmp_path / "VOC2012"


@pytest.mark.parametrize(
    ("folder", "train", "val"),
    [
        (".", "trainval", "val"),
        (".", "2012_trainval", "val"),
        (".", "trainval", "2012_val"),
        (".", "val", "trainval"),
        ("..", "trainval", "2007_val"),
        ("..", "2007_trainval+2012_trainval", "2012_val"),
    ],
)
def test_voc_s_splits_share_images_whatever_names_the_year(
    voc2012: Path, folder: str, train: str, val: str
) -> None:
    with pytest.raises(ConfigError, match=r"^\d of the \d validation images would be"):
        check_opened(
            "voc", voc2012 / folder, needs=Needs(labels=True), train_split=train, val_split=val
        )


def test_voc_s_years_share_no_image(voc2012: Path) -> None:
    labels = Needs(labels=True)
    check_opened("voc", voc2012, needs=labels, train_split="train", val_split="2012_val")
    root = voc2012.parent
    check_opened("voc", root, needs=labels, train_split="2012_trainval", val_split="val")
    check_opened("voc", root, needs=labels, train_split="trainval", val_root=voc2012)
