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
