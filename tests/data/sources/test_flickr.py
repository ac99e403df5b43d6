"""Flickr8k's and Flickr30k's lists of captions."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.sources.layouts import contents, message_of, write
from tests.data.sources.lists import CAPTIONS, FLICKR8K, FLICKR30K, KAGGLE, write_flickr
from virtex.data.source import SourceConfig, open_source
from virtex.data.sources.flickr import FlickrSource
from virtex.errors import DataError

LISTS = ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (FLICKR8K, "Flickr8k.token.txt"),
        (FLICKR8K, "results_20130124.token"),
        (KAGGLE, "captions.txt"),
        (FLICKR30K, "results.csv"),
        ("\ufeff" + FLICKR8K.replace("\n", "\r\n"), "Flickr8k.token.txt"),
        ("\ufeff" + KAGGLE.replace("\n", "\r\n"), "captions.txt"),
        (FLICKR30K.replace("\n", "\r\n"), "results.csv"),
    ],
)
def test_a_list_gives_all_captions_of_its_images(tmp_path: Path, text: str, name: str) -> None:
    path = write_flickr(tmp_path, text, name=name)
    for root in (path, tmp_path):
        source = FlickrSource(root)
        assert contents(source) == CAPTIONS
        assert source[0].image == tmp_path / "Flicker8k_Dataset" / "1000_a.jpg"
    assert source.identity()["captions"] == 4


def test_images_may_lie_beside_the_folder_of_lists(tmp_path: Path) -> None:
    path = write_flickr(tmp_path / "Flickr8k_text", images="../Flickr8k_Dataset/Flicker8k_Dataset")
    image = FlickrSource(path)[0].image
    assert isinstance(image, Path)
    assert image.parts[-3:] == ("Flickr8k_Dataset", "Flicker8k_Dataset", "1000_a.jpg")
    assert contents(FlickrSource(tmp_path)) == CAPTIONS


@pytest.mark.parametrize("lists", [LISTS, ("train.txt", "val.txt", "test.txt")])
def test_lists_beside_the_captions_are_the_splits(tmp_path: Path, lists: tuple[str, ...]) -> None:
    config = SourceConfig("flickr", root=write_flickr(tmp_path, lists=lists))
    for options, name in zip(
        ({}, {"val_split": None}, {"val_split": "test"}), CAPTIONS, strict=True
    ):
        split = "val" if options else "train"
        source = open_source(replace(config, **options), split=split)
        assert source is not None
        assert contents(source) == {name: CAPTIONS[name]}


def test_a_list_of_names_without_suffix_is_a_split_too(tmp_path: Path) -> None:
    path = write_flickr(tmp_path)
    mine = write(tmp_path / "mine.lst", "1001_b\n\n1002_c.jpg\n")
    config = SourceConfig("flickr", root=path, train_split="mine.lst")
    source = open_source(config, split="train")
    assert source is not None
    assert list(contents(source)) == ["1001_b.jpg", "1002_c.jpg"]
    write(mine, "1001_b\n9999\n")
    message = message_of(open_source, config, split="train")
    assert "images of mine.lst without captions: 1 (9999)" in message


def test_without_lists_all_is_for_training_or_a_fraction_held_out(tmp_path: Path) -> None:
    config = SourceConfig("flickr", root=write_flickr(tmp_path))
    whole = open_source(config, split="train")
    assert whole is not None
    assert contents(whole) == CAPTIONS
    assert open_source(config, split="val") is None
    sides = [open_source(replace(config, val_share=0.5), split=split) for split in ("train", "val")]
    names = [name for side in sides if side is not None for name in contents(side)]
    assert sorted(names) == list(CAPTIONS)


def test_a_list_for_validation_alone_is_refused(tmp_path: Path) -> None:
    path = write_flickr(tmp_path, lists=("val.txt",))
    config = SourceConfig("flickr", root=path)
    assert "Name a list beside it with --data.train_split" in message_of(
        open_source, config, split="train"
    )
    held_out = replace(config, train_split="train", val_share=0.5)
    write(tmp_path / "train.txt", "1001_b")
    assert "holds out others" in message_of(open_source, held_out, split="train")
    with pytest.raises(DataError, match=r"no list more.*--data.train_split"):
        open_source(replace(config, train_split="more"), split="train")


def test_a_few_lines_of_other_files_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "".join(f"1000_a.jpg#{number}\ta dog\n" for number in range(1000))
    path = write_flickr(tmp_path, lines + "2258277193_586949ec62.jpg.1#0\ta car\n")
    assert list(contents(FlickrSource(path))) == ["1000_a.jpg"]
    assert "left out 1 captions of 2258277193_586949ec62.jpg.1" in caplog.text
    write(path, FLICKR8K + "2258277193_586949ec62.jpg.1#0\ta car\n")
    assert "captions of files that are no images: 1" in message_of(FlickrSource, path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (FLICKR8K + "1003_d.jpg#0\ta cow\n", "images listed but absent: 1 (1003_d.jpg)"),
        (FLICKR8K + "no tab\n", "lines that cannot be read: 1 (line 5)"),
        (KAGGLE + "alone\n", "lines that cannot be read: 1 (line 6)"),
        (FLICKR8K + "1001_b.jpg#1\t \n", "caption is in part empty or not text: 1 (1001_b.jpg)"),
        (FLICKR8K.replace("A black dog", " "), "images without a caption: 1 (1001_b.jpg)"),
        (FLICKR8K + "../x.jpg#0\ta cow\n", "image paths that lead out of"),
        ("", "It lists no images"),
        (KAGGLE + "1001_b.jpg," + "x" * 200_000 + "\n", None),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, part: str | None) -> None:
    path = write_flickr(tmp_path, text)
    if part is None:
        assert set(contents(FlickrSource(path))) == set(CAPTIONS)
    else:
        assert part in message_of(FlickrSource, path)


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert "Name the file with --data.root" in message_of(FlickrSource, tmp_path)
    assert "UTF-8" in message_of(FlickrSource, write(tmp_path / "a.txt", b"\xff\xfe\x00"))
