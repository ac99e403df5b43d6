"""A few missing and bad captions are left out and counted, in every layout with captions."""

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import contents, jpeg, message_of, write, write_tar
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.errors import ConfigError

Captions = dict[str, str | None]
"""The caption of each image by its name; None without one."""

CAPTIONS: Captions = {"a": "a cat", "b": None, "c": "a dog", "d": " ", "e": "a fox"}
LIMIT = 0.4


def folder(root: Path, captions: Captions) -> Path:
    for name, caption in captions.items():
        write(root / f"{name}.jpg", jpeg())
        if caption is not None:
            write(root / f"{name}.txt", caption)
    return root


def webdataset(root: Path, captions: Captions) -> Path:
    files: dict[str, bytes | str] = {}
    for name, caption in captions.items():
        files[f"{name}.jpg"] = name.encode()
        if caption is not None:
            files[f"{name}.txt"] = caption
    write_tar(root / "0.tar", files)
    return root


def table(root: Path, captions: Captions) -> Path:
    for name in captions:
        write(root / f"{name}.jpg", jpeg())
    rows = [{"image": f"{name}.jpg", "caption": text} for name, text in captions.items()]
    return write(root / "t.jsonl", "\n".join(json.dumps(row) for row in rows))


def coco(root: Path, captions: Captions) -> Path:
    for name in captions:
        write(root / "train" / f"{name}.jpg", jpeg())
    images = [{"id": name, "file_name": f"{name}.jpg"} for name in captions]
    texts = [
        {"id": number, "image_id": name, "caption": text}
        for number, (name, text) in enumerate(captions.items())
        if text is not None
    ]
    texts.append({"id": len(texts) + 1, "image_id": "a", "caption": "the cat"})
    document = {"images": images, "annotations": texts}
    write(root / "annotations" / "captions_train.json", json.dumps(document))
    square = {"bbox": [0, 0, 4, 4], "category_id": 1, "iscrowd": 0}
    boxes = [
        {"id": number, "image_id": name, **square, "category_id": number % 2}
        for number, name in enumerate(captions)
    ]
    categories = [{"id": 0, "name": "even"}, {"id": 1, "name": "odd"}]
    document = {"images": images, "annotations": boxes, "categories": categories}
    write(root / "annotations" / "instances_train.json", json.dumps(document))
    return root


@pytest.fixture(params=[folder, webdataset, table, coco])
def config(tmp_path: Path, request: pytest.FixtureRequest) -> SourceConfig:
    write_layout: Callable[[Path, Captions], Path] = request.param
    root = write_layout(tmp_path, CAPTIONS)
    return SourceConfig(
        source=request.param.__name__,  # type: ignore[arg-type]
        root=root,
        missing_caption_limit=LIMIT,
    )


def test_a_few_images_without_a_caption_are_skipped_counted_and_named(
    config: SourceConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="virtex"):
        source = open_source(config, split="train")
    assert source is not None
    assert [texts[0] for texts in contents(source).values()] == ["a cat", "a dog", "a fox"]
    assert [source.captions(index)[0] for index in range(len(source))] == [
        example.captions[0] for example in source
    ]
    assert source.identity()["images"] == 3
    assert source.identity()["skipped_images"] == 2
    assert "were skipped" in caplog.text
    assert contents(pickle.loads(pickle.dumps(source))) == contents(source)


def test_more_than_the_limit_are_an_error_that_names_the_option(config: SourceConfig) -> None:
    message = message_of(open_source, replace(config, missing_caption_limit=0.1), split="train")
    words = "have no caption, or a bad one, and --data.missing_caption_limit 0.1 allows no larger"
    assert words in message
    assert message_of(open_source, replace(config, missing_caption_limit=0.0), split="train")


def test_an_image_without_a_caption_keeps_its_place_where_none_is_needed(
    config: SourceConfig,
) -> None:
    source = open_source(replace(config, missing_caption_limit=0.0), split="train", needs=Needs())
    assert source is not None
    assert len(source) == len(CAPTIONS)
    assert "skipped_images" not in source.identity()


def test_captions_stay_with_their_images_and_objects(tmp_path: Path) -> None:
    root = coco(tmp_path, CAPTIONS)
    config = SourceConfig(source="coco", root=root, missing_caption_limit=LIMIT)
    source = open_source(config, split="train", needs=Needs(captions=True, objects=True))
    assert source is not None
    found = [(one.image_id, one.captions, one.labels) for one in source]
    captions = [("a", ("a cat", "the cat")), ("c", ("a dog",)), ("e", ("a fox",))]
    assert found == [(*pair, (0,)) for pair in captions]
    assert [source.labels(index) for index in range(3)] == [(0,)] * 3


def test_images_stay_with_their_captions_in_shards(tmp_path: Path) -> None:
    root = webdataset(tmp_path, CAPTIONS)
    config = SourceConfig(source="webdataset", root=root, missing_caption_limit=LIMIT)
    source = open_source(config, split="train")
    assert source is not None
    assert [(one.image, one.captions) for one in source] == [
        (b"a", ("a cat",)),
        (b"c", ("a dog",)),
        (b"e", ("a fox",)),
    ]


def test_an_image_keeps_its_other_captions(tmp_path: Path) -> None:
    root = table(tmp_path, {"a": "a cat"}).parent
    write(root / "t.jsonl", '{"image": "a.jpg", "caption": ["a cat", ""]}\n' * 2)
    config = SourceConfig(source="table", root=root / "t.jsonl")
    assert "2 of 2 rows have no caption" in message_of(open_source, config, split="train")
    write(root / "t.jsonl", '{"image": "a.jpg", "caption": "a cat"}\n{"image": "a.jpg"}\n')
    source = open_source(replace(config, missing_caption_limit=0.5), split="train")
    assert source is not None
    assert contents(source) == {"a.jpg": ("a cat",)}
    assert "skipped_images" not in source.identity()


def test_a_caption_is_needed_whatever_the_limit(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a": None, "b": " "})
    config = SourceConfig(source="folder", root=root, missing_caption_limit=1)
    assert "no train image in" in message_of(open_source, config, split="train")


def flickr(root: Path, captions: list[object]) -> Path:
    write(root / "a.jpg", jpeg())
    lines = [f"a.jpg,{caption}\n" for caption in captions]
    return write(root / "captions.txt", "".join(["image,caption\n", *lines]))


def karpathy(root: Path, captions: list[object]) -> Path:
    write(root / "a.jpg", jpeg())
    sentences = [{"raw": caption} for caption in captions] + [{"tokens": ["x"]}]
    image = {"filename": "a.jpg", "split": "train", "sentences": sentences}
    return write(root / "dataset_x.json", json.dumps({"images": [image]}))


def beside(root: Path, captions: list[object]) -> Path:
    write(root / "a.jpg", jpeg())
    write(root / "a.json", json.dumps({"caption": captions}))
    return root


def in_shards(root: Path, captions: list[object]) -> Path:
    write_tar(root / "0.tar", {"a.jpg": jpeg(), "a.json": json.dumps({"caption": captions})})
    return root


@pytest.mark.parametrize(
    ("source", "write_layout", "bad", "keys"),
    [
        ("flickr", flickr, [""], {}),
        ("karpathy", karpathy, ["", 3, None], {}),
        ("folder", beside, [3, "", None], {}),
        ("folder", beside, [3, "", None], {"caption": 1.0, "other": 1.0}),
        ("webdataset", in_shards, [3, " ", None], {}),
        ("webdataset", in_shards, [3, " ", None], {"caption": 1.0, "other": 1.0}),
    ],
)
def test_bad_captions_beside_a_good_one_are_left_out_and_counted(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    source: Any,
    write_layout: Callable[[Path, list[object]], Path],
    bad: list[object],
    keys: dict[str, float],
) -> None:
    config = SourceConfig(source, write_layout(tmp_path, ["a cat", *bad]), caption_keys=keys)
    message = message_of(open_source, config, split="train")
    assert "images whose caption is in part empty or not text: 1 (" in message
    assert "1 of 1 images have no caption, or a bad one" in message
    found = open_source(replace(config, missing_caption_limit=1), split="train")
    assert found is not None
    assert [one.captions for one in found] == [("a cat",)]
    assert "1 of 1 images were skipped, or their bad captions: images whose capt" in caplog.text
    assert "skipped_images" not in found.identity()


def test_keys_of_which_nothing_is_said_are_absent(tmp_path: Path) -> None:
    for name, alt in (("a", ""), ("b", None), ("c", []), ("d", " ")):
        write(tmp_path / f"{name}.jpg", jpeg())
        write(tmp_path / f"{name}.json", json.dumps({"alt": alt, "caption": "a cat"}))
    config = SourceConfig("folder", tmp_path, caption_keys={"alt": 1, "caption": 1})
    source = open_source(replace(config, missing_caption_limit=0), split="train")
    assert source is not None
    assert [one.captions for one in source] == [("a cat",)] * 4


@pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
def test_the_limit_is_a_fraction(limit: float) -> None:
    config = SourceConfig(source="folder", root=Path("x"), missing_caption_limit=limit)
    with pytest.raises(ConfigError, match=r"--data\.missing_caption_limit must be from 0 to 1"):
        open_source(config, split="train")


def test_sources_without_captions_have_no_limit_of_missing_ones() -> None:
    config = SourceConfig(source="classes", root=Path("x"), missing_caption_limit=0.5)
    with pytest.raises(ConfigError, match="means nothing to"):
        open_source(config, split="train", needs=Needs(labels=True))
