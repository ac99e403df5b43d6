"""Which images are for training and which for validation, in every layout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import (
    contents,
    jpeg,
    message_of,
    write,
    write_coco,
    write_tar,
)
from tests.data.test_source import config_error
from virtex.data.source import Needs, SourceConfig, open_source


def write_folder(root: Path, *names: str) -> Path:
    for name in names:
        write(root / f"{name}.jpg", jpeg())
        write(root / f"{name}.txt", name)
    return root


def write_shards(root: Path, *names: str) -> Path:
    for name in names:
        write_tar(root / f"{name}.tar", {"1.jpg": jpeg(), "1.txt": name})
    return root


def write_classes(root: Path, *names: str) -> Path:
    for name in names:
        folder, _, leaf = name.rpartition("/")
        write(root / folder / "cat" / f"{leaf}.jpg", jpeg())
    return root


LAYOUTS: dict[str, tuple[Callable[..., Path], dict[str, bool]]] = {
    "folder": (write_folder, {}),
    "webdataset": (write_shards, {}),
    "classes": (write_classes, {"needs": Needs(labels=True)}),
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> tuple[str, Callable[..., Path], dict[str, bool]]:
    return request.param, *LAYOUTS[request.param]


def test_coco_opens_both_splits_or_none_for_validation(tmp_path: Path) -> None:
    config = SourceConfig(source="coco", root=write_coco(tmp_path))
    assert open_source(config, split="val") is None
    write_coco(tmp_path, "val2017")
    val = open_source(config, split="val", needs=Needs(captions=True, objects=True))
    assert val is not None
    assert val.identity()["split"] == "val2017"
    assert val.categories == ("dog", "bicycle")


def test_coco_reads_any_split_that_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", "mine")
    write_coco(tmp_path / "b", "val2017")
    config = SourceConfig(
        source="coco", root=tmp_path / "a", train_split="mine", val_root=tmp_path / "b"
    )
    for split, root in (("train", "a"), ("val", "b")):
        source = open_source(config, split=split)
        assert source is not None
        assert source.identity()["root"] == str(tmp_path / root)


def test_a_validation_split_that_is_named_must_be_there(tmp_path: Path) -> None:
    config = SourceConfig(source="coco", root=write_coco(tmp_path), val_split="other")
    assert "captions_other.json" in message_of(open_source, config, split="val")


def test_subfolders_are_the_splits(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "train/a", "train/b", "val/c")
    config = SourceConfig(source=name, root=tmp_path)
    train = open_source(config, split="train", **needs)
    val = open_source(config, split="val", **needs)
    assert train is not None
    assert val is not None
    assert (len(train), len(val)) == (2, 1)


def test_without_subfolders_all_is_for_training(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    config = SourceConfig(source=name, root=write_layout(tmp_path, "a", "b"))
    train = open_source(config, split="train", **needs)
    assert train is not None
    assert len(train) == 2
    assert open_source(config, split="val", **needs) is None


def test_a_fraction_held_out_never_trains(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, *[f"{number:03d}" for number in range(40)])
    config = SourceConfig(source=name, root=tmp_path, val_share=0.3)
    sides = [open_source(config, split=split, **needs) for split in ("train", "val")]
    train, val = (set(contents(side)) for side in sides if side is not None)
    assert len(train | val) == 40
    assert not train & val
    assert 4 <= len(val) <= 20
    other = open_source(replace(config, seed=1), split="val", **needs)
    assert other is not None
    assert set(contents(other)) != val


def test_validation_data_may_lie_elsewhere(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path / "a", "1", "2")
    write_layout(tmp_path / "b", "3")
    config = SourceConfig(source=name, root=tmp_path / "a", val_root=tmp_path / "b")
    val = open_source(config, split="val", **needs)
    assert val is not None
    assert len(val) == 1


def test_validation_images_are_never_trained_on_by_accident(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "training/a", "val/c")
    config = SourceConfig(source=name, root=tmp_path)
    message = message_of(open_source, config, split="train", **needs)
    assert "val included. Name the training images' folder with --data.train_split" in message
    train = open_source(replace(config, train_split="training"), split="train", **needs)
    assert train is not None
    assert len(train) == 1


def test_a_root_one_level_too_high_is_warned_of(
    tmp_path: Path, layout: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "flickr/train/a", "flickr/val/c")
    train = open_source(SourceConfig(source=name, root=tmp_path), split="train", **needs)
    assert train is not None
    assert len(train) == 2
    told = "flickr holds train and val, and all of them are training images. For train alone: {}"
    assert told.format(f"--data.root {tmp_path / 'flickr'}") in caplog.text
    caplog.clear()
    open_source(SourceConfig(source=name, root=tmp_path / "flickr"), split="train", **needs)
    assert "all of them are training images" not in caplog.text


@pytest.mark.parametrize("held_out", ["Val", "validation", "VALID", "dev", "Test", "test2015"])
def test_folders_of_other_usual_names_are_not_trained_on_by_accident(
    tmp_path: Path, layout: Any, held_out: str
) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "Train/a", f"{held_out}/c")
    config = SourceConfig(source=name, root=tmp_path)
    message = message_of(open_source, config, split="train", **needs)
    assert f"holds {held_out} but no train: all of it would be training images" in message
    assert f"--data.train_split (. for all of {tmp_path})" in message
    for train_split, number in ((".", 2), ("Train", 1)):
        named = replace(config, train_split=train_split)
        train = open_source(named, split="train", **needs)
        assert train is not None
        assert len(train) == number
    val = open_source(replace(named, val_split=held_out), split="val", needs=Needs())
    assert val is not None
    assert len(val) == 1


def test_what_lies_beside_the_folder_train_is_counted(
    tmp_path: Path, layout: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "train/a", "val/b", "test/c")
    config = SourceConfig(source=name, root=tmp_path)
    open_source(config, split="train", **needs)
    assert "beside train" not in caplog.text
    write_layout(tmp_path, "bus/a", "bus/b", "dev/c")
    for split in ("train", "val"):
        open_source(config, split=split, **needs)
    (told,) = [line for line in caplog.messages if "beside train" in line]
    assert told.startswith(f"{tmp_path}: passed over 3 files: 2 in bus, 1 in dev, beside train")
    caplog.clear()
    open_source(replace(config, train_split="train"), split="train", **needs)
    assert "beside train" not in caplog.text


def test_images_and_shards_on_top_beside_train_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(write_folder(tmp_path, "train/a", "b", "c"), "train/a", "d")
    for source, number in (("folder", 2), ("webdataset", 1)):
        caplog.clear()
        open_source(SourceConfig(source=source, root=tmp_path), split="train")  # type: ignore[arg-type]
        assert f": {number} in the root, beside train" in caplog.text


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    for name in ("bus/1", "car/2", "train/3"):
        write(tmp_path / f"{name}.jpg", jpeg())
    config = SourceConfig(source="classes", root=tmp_path)
    message = message_of(open_source, config, split="train", needs=Needs(labels=True))
    assert "train is taken for the training split by its name, but holds no class f" in message
    assert "beside it are bus, car. If all are classes, give --data.train_split . (all" in message
    source = open_source(replace(config, train_split="."), split="train", needs=Needs(labels=True))
    assert source is not None
    assert source.categories == ("bus", "car", "train")


def test_seeds_that_cannot_draw_are_refused(tmp_path: Path) -> None:
    config = SourceConfig("folder", root=write_folder(tmp_path, *"abcdefgh"), seed=-1)
    assert "seed must be at least 0 and below" in config_error(replace(config, share=0.5))
    assert "seed must be at least 0 and below" in config_error(SourceConfig("scenes", seed=-1))
    assert open_source(replace(config, val_share=0.5), split="train") is not None
    message = config_error(replace(config, val_share=0.5, seed=2**63))
    assert f"seed must be at least -{2**63} and below {2**63}, not {2**63}." in message


def test_folders_whose_names_only_begin_so_are_trained_on(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "valley/a", "developers/b", "tests/c")
    train = open_source(SourceConfig(source=name, root=tmp_path), split="train", **needs)
    assert train is not None
    assert len(train) == 3


def test_a_split_that_is_named_must_be_there(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    config = SourceConfig(source=name, root=write_layout(tmp_path, "train/a"))
    message = message_of(open_source, replace(config, train_split="x"), split="train", **needs)
    assert "--data.train_split" in message
    message = message_of(open_source, replace(config, val_split="x"), split="val", **needs)
    assert "--data.val_split" in message


def test_validation_data_cannot_be_named_twice(tmp_path: Path, layout: Any) -> None:
    name, write_layout, needs = layout
    write_layout(tmp_path, "train/a", "val/c")
    config = SourceConfig(source=name, root=tmp_path, val_share=0.1)
    assert "holds out others" in message_of(open_source, config, split="val", **needs)
    assert "holds out others" in message_of(open_source, config, split="train", **needs)


def test_a_fraction_that_holds_out_nothing_is_an_error(tmp_path: Path) -> None:
    config = SourceConfig(source="folder", root=write_folder(tmp_path, "a"), val_share=1e-9)
    message = message_of(open_source, config, split="val")
    assert "of 1 images leaves none for val" in message
