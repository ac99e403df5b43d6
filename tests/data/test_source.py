import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import (
    contents,
    jpeg,
    message_of,
    real_data,
    write,
    write_coco,
    write_tar,
)
from virtex import config as config_files
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.errors import ConfigError, DataError


def config_error(config: SourceConfig, **needs: Any) -> str:
    """What the ConfigError says that opening raises."""
    with pytest.raises(ConfigError) as raised:
        open_source(config, split="train", **needs)
    return str(raised.value)


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


def test_every_option_has_help_and_survives_yaml() -> None:
    config = SourceConfig(source="coco", root=Path("x"), share=0.5, num_captions=1)
    assert config_files.from_dict(SourceConfig, config_files.to_dict(config)) == config
    help_text = " ".join(config_files.parser_for(SourceConfig, prog="x").format_help().split())
    assert "tar shards" in help_text
    assert "Random seed of the drawn scenes" in help_text


def test_scenes_need_no_options() -> None:
    config = SourceConfig(num_images=6, num_val_images=2)
    train, val = (open_source(config, split=split) for split in ("train", "val"))
    assert train is not None
    assert val is not None
    assert (len(train), len(val)) == (6, 2)
    assert open_source(replace(config, num_val_images=0), split="val") is None


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


def test_class_folders_must_be_the_same_in_both_splits(tmp_path: Path) -> None:
    write(tmp_path / "train/cat/1.jpg", jpeg())
    write(tmp_path / "val/dog/1.jpg", jpeg())
    config = SourceConfig(source="classes", root=tmp_path)
    for split in ("train", "val"):
        message = message_of(open_source, config, split=split, needs=Needs())
        assert "same classes" in message


def test_tables_are_two_files_or_one_with_a_fraction(tmp_path: Path) -> None:
    for name in "abcdefgh":
        write(tmp_path / f"{name}.jpg", jpeg())
    rows = [json.dumps({"image": f"{name}.jpg", "caption": name}) for name in "abcdefgh"]
    config = SourceConfig(source="table", root=write(tmp_path / "t.jsonl", "\n".join(rows)))
    assert open_source(config, split="val") is None
    other = write(tmp_path / "v.jsonl", rows[0])
    val = open_source(replace(config, val_root=other), split="val")
    assert val is not None
    assert contents(val) == {"a.jpg": ("a",)}
    sides = [open_source(replace(config, val_share=0.5), split=split) for split in ("train", "val")]
    names = [name for side in sides if side is not None for name in contents(side)]
    assert sorted(names) == [f"{name}.jpg" for name in "abcdefgh"]


def test_voc_opens_with_and_without_boxes() -> None:
    config = SourceConfig(source="voc", root=real_data("voc2007"))
    val = open_source(config, split="val", needs=Needs(objects=True))
    assert val is not None
    assert len(val) == 2508
    assert val[0].boxes is not None
    config = replace(config, train_split="trainval", val_split="test")
    train = open_source(config, split="train", needs=Needs())
    assert train is not None
    assert len(train) == 5008
    with pytest.raises(DataError, match="splits found: train, val, trainval"):
        open_source(config, split="val", needs=Needs())


def test_share_and_num_captions_touch_training_alone(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        write_coco(tmp_path, split)
    config = SourceConfig(source="coco", root=tmp_path, share=0.67, num_captions=1)
    train, val = (open_source(config, split=split) for split in ("train", "val"))
    assert train is not None
    assert val is not None
    assert [len(example.captions) for example in train] == [1, 1]
    assert [len(example.captions) for example in val] == [1, 2, 1]
    identity = train.identity()
    assert (identity["subset"], identity["captions_per_image"]) == (2, 1)


def write_table(root: Path, *names: str) -> Path:
    rows = [f"{name}.jpg,{caption}" for name in names for caption in ("a cat", "a dog")]
    for name in names:
        write(root / f"{name}.jpg", jpeg())
    write(root / "table.csv", "\n".join(["image,caption", *rows]))
    return root / "table.csv"


def write_captioned_folder(root: Path, *names: str) -> Path:
    for name in names:
        write(root / f"{name}.jpg", jpeg())
        write(root / f"{name}.txt", "a cat\na dog")
    return root


def write_captioned_shard(root: Path, *names: str) -> Path:
    files = {}
    for name in names:
        files |= {f"{name}.jpg": jpeg(), f"{name}.txt": "a cat\na dog"}
    write_tar(root / "one.tar", files)
    return root


@pytest.mark.parametrize(
    ("source", "write_source"),
    [
        ("folder", write_captioned_folder),
        ("webdataset", write_captioned_shard),
        ("table", write_table),
    ],
)
def test_share_and_num_captions_serve_every_source_of_captions(
    source: Any, write_source: Callable[..., Path], tmp_path: Path
) -> None:
    root = write_source(tmp_path, *"abcdef")
    config = SourceConfig(source=source, root=root)
    whole = open_source(config, split="train")
    part = open_source(replace(config, share=0.5, num_captions=1), split="train")
    assert whole is not None
    assert part is not None
    assert [len(example.captions) for example in whole] == [2] * 6
    assert [part.captions(index) for index in range(len(part))] == [("a cat",)] * 3


def test_all_wrong_options_are_reported_at_once(tmp_path: Path) -> None:
    config = SourceConfig(
        source="coco", val_share=1.5, image_column="x", num_images=3, share=0, num_captions=0
    )
    message = config_error(config)
    for part in (
        "--data.source coco needs --data.root",
        "--data.val_share 1.5 means nothing to --data.source coco, which uses",
        "--data.image_column x means nothing",
        "--data.num_images 3 means nothing",
        "--data.val_share must be at least 0 and below 1, not 1.5.",
        "--data.share must be above 0 and at most 1, not 0.",
        "--data.num_captions must be at least 1, not 0.",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"source": "photos"}, "it is one of auto, scenes, coco, lvis"),
        ({"source": "scenes", "root": Path("x")}, "--data.root x means nothing"),
        ({"source": "coco", "root": Path("x"), "seed": 3}, "--data.seed 3 means nothing"),
        ({"source": "table"}, "needs --data.root: the table, a file"),
        (
            {"source": "folder", "root": Path("x"), "val_root": Path("y"), "val_share": 0.1},
            "--data.val_share and --data.val_root both name validation data",
        ),
        (
            {"source": "folder", "root": Path("x"), "train_split": "val"},
            "the same split, val",
        ),
        (
            {"source": "folder", "root": Path("x"), "bad_object_limit": 0.1},
            "--data.bad_object_limit 0.1 means nothing to --data.source folder",
        ),
        (
            {"source": "coco", "root": Path("x"), "bad_object_limit": 1.0},
            "--data.bad_object_limit must be at least 0 and below 1, not 1.0.",
        ),
        ({"num_images": 0}, "--data.num_images must be at least 1"),
        ({"num_val_images": -1}, "--data.num_val_images must be at least 0"),
        ({"image_size": 0}, "--data.image_size must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], part: str) -> None:
    assert part in config_error(SourceConfig(**options))


@pytest.mark.parametrize(
    ("source", "needs", "part"),
    [
        ("voc", {}, "captions are needed, and --data.source voc has none; these have: coco"),
        ("classes", {}, "captions are needed"),
        ("lvis", {}, "captions are needed"),
        ("inaturalist", {"needs": Needs(objects=True)}, "boxes are needed"),
        ("voc", {"needs": Needs(objects=True, masks=True)}, "masks are needed"),
        ("table", {"needs": Needs(labels=True)}, "labels are needed, and --data.source table"),
        (
            "folder",
            {"needs": Needs(captions=True, objects=True)},
            "boxes are needed, and --data.source folder has none; these have: coco, scenes.",
        ),
        (
            "voc",
            {"needs": Needs(objects=True, masks=True, can_do_without="--task.masks false")},
            "masks are needed, and --data.source voc has none; these have: coco, lvis, scenes. "
            "--task.masks false does without.",
        ),
    ],
)
def test_what_a_source_cannot_give_is_refused(
    source: Any, needs: dict[str, bool], part: str
) -> None:
    assert part in config_error(SourceConfig(source=source, root=Path("x")), **needs)
