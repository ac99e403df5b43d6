"""Karpathy's splits, and the ways in which their file can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import contents, jpeg, message_of, write
from tests.data.sources.lists import write_karpathy
from virtex.data.source import SourceConfig, open_source
from virtex.data.sources.karpathy import KarpathySource


@pytest.mark.parametrize(
    ("split", "numbers"), [("train", [0, 1]), ("train+restval", [0, 1, 2]), ("val", [3])]
)
def test_a_split_has_its_images_and_raw_sentences(
    tmp_path: Path, split: str, numbers: list[int]
) -> None:
    source = KarpathySource(write_karpathy(tmp_path), split=split)
    assert contents(source) == {f"{n}.jpg": (f"A dog {n}.", f"One {n}.") for n in numbers}
    assert [example.image for example in source] == [tmp_path / f"images/{n}.jpg" for n in numbers]
    assert source.identity()["split"] == split


@pytest.mark.parametrize("named", [None, "COCO"])
def test_cocos_images_lie_below_its_own_folders(tmp_path: Path, named: str | None) -> None:
    path = write_karpathy(
        tmp_path / "karpathy" if named is None else tmp_path,
        name="dataset_coco.json",
        images="../COCO" if named is None else "COCO",
        filepath="val2014",
    )
    image_root = None if named is None else tmp_path / named
    source = KarpathySource(path, split="val", image_root=image_root)
    assert list(contents(source)) == ["val2014/3.jpg"]
    assert source[0].image == tmp_path / "COCO" / "val2014" / "3.jpg"


def test_the_file_is_found_in_its_folder(tmp_path: Path) -> None:
    write_karpathy(tmp_path)
    assert len(KarpathySource(tmp_path, split="test")) == 1
    write_karpathy(tmp_path, name="dataset_flickr30k.json")
    assert "nor a folder with one dataset*.json" in message_of(
        KarpathySource, tmp_path, split="test"
    )


def test_images_in_two_folders_are_not_guessed(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, images="a")
    write_karpathy(tmp_path, images="b")
    message = message_of(KarpathySource, path, split="train")
    assert "Name one with --data.image_root" in message
    assert len(KarpathySource(path, split="train", image_root=tmp_path / "b")) == 2


def test_validation_is_the_files_own(tmp_path: Path) -> None:
    config = SourceConfig("karpathy", root=write_karpathy(tmp_path), train_split="train+restval")
    sides = [open_source(config, split=split) for split in ("train", "val")]
    assert [len(side) for side in sides if side is not None] == [3, 1]
    text = config.root.read_text().replace('"val"', '"test"') if config.root else ""
    write(tmp_path / "dataset_flickr8k.json", text)
    assert open_source(config, split="val") is None


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"split": "dev"}, "No image has the split val; its splits are dev (5). Name one"),
        ({"filename": "../../x.jpg"}, "image paths that lead out of"),
        ({"filename": "gone.jpg"}, "images listed more than once: 4"),
        ({"filename": 7}, 'entries of "images" that cannot be read: 5'),
        ({"sentences": "a dog"}, 'entries of "images" that cannot be read: 5'),
        ({"sentences": [{"raw": " "}]}, "images without a caption: 1 (3.jpg)"),
        ({"sentences": [7, {"raw": 7}]}, "images without a caption: 1 (3.jpg)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    path = write_karpathy(tmp_path)
    document = json.loads(path.read_text())
    for row in document["images"]:
        row |= change
    if "filename" in change:
        for row in document["images"]:
            row["split"] = "val"
    write(path, json.dumps(document))
    assert part in message_of(KarpathySource, path, split="val")


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": {}}', "x", "[" * 100_000])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    message_of(KarpathySource, write(tmp_path / "dataset.json", text), split="val")


def test_an_absent_image_is_named(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path)
    (tmp_path / "images" / "0.jpg").unlink()
    message = message_of(KarpathySource, path, split="train")
    assert "images listed but absent: 1 (0.jpg)" in message
    write(tmp_path / "images" / "0.jpg", jpeg())
    assert len(KarpathySource(path, split="train")) == 2
