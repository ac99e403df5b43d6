"""`virtex data check` on data with everything that it is there to find."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.sources.hub_sets import captioned, datasets
from tests.data.sources.layouts import jpeg, real_data, write, write_tar
from tests.drawn_images import write_classes
from virtex import cli
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.shards.manifest import Manifest
from virtex.data.source import SourceConfig, open_source
from virtex.data.sources.shards import ShardedSource
from virtex.data.tokenizer import train_tokenizer
from virtex.data_check.check import check_data
from virtex.data_check.check_config import CheckConfig
from virtex.data_check.check_page import WIDTH
from virtex.errors import ConfigError, DataError


def checked(root: Path, **options: object) -> tuple[str, dict[str, dict[str, int]]]:
    """Return the page, and the number of each finding by split."""
    out = root.parent / "numbers.json"
    data = options.pop("data", SourceConfig(root=root))
    page = check_data(CheckConfig(data=data, out=out, **options))  # type: ignore[arg-type]
    counts: dict[str, dict[str, int]] = {}
    for one in json.loads(out.read_text())["findings"]:
        counts.setdefault(one["split"], {})[one["name"]] = one["count"]
    return page, counts


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A folder as from the web: 9 good images of 20, and 3 for validation."""
    train, val = tmp_path / "web/train", tmp_path / "web/val"
    captions = {
        **{f"good{number}": f"a dog number {number} runs" for number in range(8)},
        "good8": "b\nthe second line is a caption",
        "empty": "",
        "short": "a",
        "name": "IMG_0417.JPG",
        "link": "https://example.org",
        "digits": "2004 12 31 x",
        **{f"boiler{number}": "Image not available" for number in range(2)},
        "z_copy": "a dog that was here before",
        "known": "a dog that is in val",
        "cut": "a dog that is cut\x1b[2J off",
        "pipe": "a dog in a pipe",
    }
    for number, (name, text) in enumerate(captions.items()):
        write(train / f"{name}.jpg", jpeg(5 * number))
        write(train / f"{name}.txt", text)
    write(train / "z_copy.jpg", jpeg(0))
    write(train / "cut.jpg", jpeg(3)[:-20])
    (train / "pipe.jpg").unlink()
    os.mkfifo(train / "pipe.jpg")
    for name, data in (("val0", jpeg(251)), ("val1", jpeg(253)), ("val2", b"no image")):
        write(val / f"{name}.jpg", data)
        write(val / f"{name}.txt", "a cat sits")
    write(train / "known.jpg", jpeg(251))
    return tmp_path / "web"


def test_everything_that_is_wrong_is_found_and_listed(web: Path) -> None:
    bad, good = web.parent / "bad.txt", web.parent / "good.txt"
    page, counts = checked(web, write_bad=bad, write_good=good, boilerplate=2)
    assert counts["train"] == {
        "broken": 2, "no_caption": 1, "same_image": 1, "in_validation": 1, "small": 17,
        "near_empty": 2, "file_name": 1, "url": 1, "digits": 1, "boilerplate": 2,
    }  # fmt: skip
    assert counts["val"] == {"broken": 1, "small": 2, "boilerplate": 3}
    names = {Path(line).stem for line in bad.read_text().splitlines()}
    expected = {"empty", "short", "name", "link", "digits", "boiler0", "boiler1", "z_copy", "known"}
    assert names == expected | {"cut", "pipe", "val0", "val1", "val2"}
    assert all(Path(line).exists() for line in bad.read_text().splitlines())
    assert good.read_text().split() == [f"good{number}.jpg" for number in range(9)]
    assert "a named pipe, not a file" in page
    options = SourceConfig(source="folder", root=web, keep=good, missing_caption_limit=0.5)
    source = open_source(options, split="train")
    assert source is not None
    assert [source.image_id(index) for index in range(len(source))] == good.read_text().split()


def test_the_page_fits_a_terminal_and_holds_no_control_characters(web: Path) -> None:
    write(web / "train/other.jpg", jpeg(9))
    write(web / "train/other.txt", "IMG_1234 \x1b]0;title\x07" + "犬" * 200)
    page, _ = checked(web, write_bad=web.parent / "b", write_good=web.parent / "g")
    for line in page.split("\n")[:-1]:  # the last one is a command to copy
        assert len(line) <= WIDTH
        assert line.isprintable()


def test_an_image_with_a_good_caption_beside_a_bad_one_stays(tmp_path: Path) -> None:
    write(tmp_path / "data/a.jpg", jpeg(1))
    write(tmp_path / "data/a.txt", "x\na dog runs")
    good = tmp_path / "good.txt"
    _, counts = checked(tmp_path / "data", write_good=good)
    assert counts["train"]["near_empty"] == 1
    assert good.read_text() == "a.jpg\n"


def test_a_list_of_good_images_holds_every_name_of_a_file(tmp_path: Path) -> None:
    names = [b"good", b"caf\xe9", b"line\nbreak", b" lead", b'"quoted"', b"#hash", b"ni\xc3\xb1o"]
    root = os.fsencode(tmp_path / "data") + b"/"
    (tmp_path / "data").mkdir()
    for number, name in enumerate(names):
        Path(os.fsdecode(root + name + b".jpg")).write_bytes(jpeg(20 * number))
        Path(os.fsdecode(root + name + b".txt")).write_text("a dog runs\n")
    write(tmp_path / "data/bad.jpg", b"no image")
    write(tmp_path / "data/bad.txt", "a dog runs")
    good = tmp_path / "good.txt"
    checked(tmp_path / "data", write_good=good)
    kept = open_source(
        SourceConfig(source="folder", root=tmp_path / "data", keep=good), split="train"
    )
    assert kept is not None
    assert {kept.image_id(index) for index in range(len(kept))} == {
        os.fsdecode(name + b".jpg") for name in names
    }


def test_a_list_of_a_share_is_used_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        write(tmp_path / f"data/{number}.jpg", jpeg(20 * number))
        write(tmp_path / f"data/{number}.txt", "a dog runs" if number else "?")
    good = tmp_path / "good.txt"
    data = SourceConfig(source="folder", root=tmp_path / "data", share=0.9)
    page, _ = checked(tmp_path / "data", data=data, write_good=good)
    assert page.endswith(f"then --data.keep {good} --data.share 1")
    open_source(replace(data, keep=good), split="train")
    assert "--data.share 0.9 takes a part of the 6 images that --data.keep lists" in caplog.text


def test_the_findings_to_leave_out_can_be_chosen(web: Path) -> None:
    bad = web.parent / "bad.txt"
    checked(web, write_bad=bad, bad=("url", "broken"))
    names = [Path(line).name for line in bad.read_text().splitlines()]
    assert names == ["cut.jpg", "link.jpg", "pipe.jpg", "val2.jpg"]


def test_shards_give_the_ids_that_an_index_keeps(tmp_path: Path) -> None:
    files = {"0.jpg": jpeg(0), "0.txt": "a dog runs", "1.jpg": jpeg(9), "1.txt": "www.example.org"}
    write_tar(tmp_path / "data/00000.tar", {**files, "2.jpg": jpeg(50)})
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    page, counts = checked(tmp_path / "data", write_good=good, write_bad=bad)
    assert counts["train"]["no_caption"] == 1
    assert good.read_text() == "00000.tar/0\n"
    assert bad.read_text() == "00000.tar/2\n00000.tar/1\n"
    assert f"then --data.keep {good}" in page
    assert page.endswith(f"or virtex index {tmp_path / 'data'} --keep {good}")
    manifest = index_shards(IndexConfig(root=str(tmp_path / "data"), keep=good), processes=1)
    assert [example.image_id for example in ShardedSource(Manifest.read(manifest))] == [
        "00000.tar/0"
    ]
    page, _ = checked(manifest)
    assert "images to leave out" not in page


def test_captions_that_training_would_refuse_leave_the_images_to_check(tmp_path: Path) -> None:
    write(tmp_path / "data/a.jpg", jpeg(1))
    write(tmp_path / "data/a.txt", b"\xff\xfe\x00")
    page, counts = checked(tmp_path / "data")
    assert "captions cannot be read" in page
    assert "not UTF-8" in page
    assert counts["train"] == {"small": 1}


def test_a_manifest_for_other_captions_leaves_the_images_to_check(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "0.tar", {"0.jpg": jpeg(1), "0.txt": "a dog"})
    config = IndexConfig(root=str(tmp_path / "data"), with_captions=False)
    page, counts = checked(index_shards(config, processes=1))
    assert "captions cannot be read" in page
    assert "was indexed without captions" in " ".join(page.split())
    assert counts["train"] == {"small": 1}


def test_one_fault_of_two_splits_is_said_once(tmp_path: Path) -> None:
    one = captioned("a cat")
    root = tmp_path / "set"
    datasets.DatasetDict({"train": one, "validation": one}).save_to_disk(root)
    source = SourceConfig(source="huggingface", root=root, caption_column="nope")
    page = " ".join(check_data(CheckConfig(data=source)).split())
    assert page.count("captions cannot be read") == 1
    assert page.count("There is no column nope") == 1


def test_images_with_classes_alone_are_checked(tmp_path: Path) -> None:
    write_classes(tmp_path / "data")
    page, counts = checked(tmp_path / "data", image_size=32)
    assert counts == {}
    assert "Nothing to mend." in page


def test_a_broken_shard_or_an_empty_source_is_bad_data(tmp_path: Path) -> None:
    write(write_tar(tmp_path / "data/0.tar", {"0.jpg": jpeg(0)}).with_name("1.tar"), b"\1" * 700)
    with pytest.raises(DataError, match="truncated or broken"):
        checked(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no images in it"):
        checked(tmp_path / "empty")
    write(tmp_path / "table.csv", "image,caption\n")
    with pytest.raises(DataError, match="no rows"):
        checked(tmp_path / "table.csv")


def test_a_sample_is_decoded_and_its_size_can_be_chosen(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"data/{number}.jpg", jpeg(number * 5))
        write(tmp_path / f"data/{number}.txt", f"a dog number {number}")
    page, counts = checked(tmp_path / "data", decode=0.5)
    assert counts["train"]["small"] == 10
    assert "10 chosen at random" in page


def test_tokens_are_counted_with_a_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "data/a.jpg", jpeg(1))
    write(tmp_path / "data/a.txt", "abcdefghijklmnopqrstuvwxyz")
    train_tokenizer(["a b c d e f g h i j k l m n o p q r s t u v w x y z"], vocab_size=40).save(
        tmp_path / "letters.model"
    )
    _, estimated = checked(tmp_path / "data", max_tokens=20)
    _, counted = checked(
        tmp_path / "data", max_tokens=20, tokenizer_path=tmp_path / "letters.model"
    )
    assert (estimated["train"].get("long"), counted["train"]["long"]) == (None, 1)


def test_large_images_and_every_format_are_measured(tmp_path: Path) -> None:
    pixels = Image.fromarray(np.zeros((90, 120, 3), np.uint8))
    for suffix in ("jpg", "png", "webp", "gif", "bmp", "tiff", "ppm"):
        (tmp_path / "data/a").mkdir(parents=True, exist_ok=True)
        pixels.save(tmp_path / f"data/a/x.{suffix}")
    checked(tmp_path / "data", data=SourceConfig(source="classes", root=tmp_path / "data"))
    images = json.loads((tmp_path / "numbers.json").read_text())["splits"]["train"]["decoded"]
    assert set(images["formats"]) == {"JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "PPM"}
    assert images["broken"] == 0
    assert images["short_side"]["0.5"] == 90


def test_scenes_are_drawn_and_checked() -> None:
    data = SourceConfig(source="scenes", num_images=12, num_val_images=4)
    page = check_data(CheckConfig(data=data))
    assert "drawn (scenes)" in page
    assert "Latin" in page


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean broken") as raised:
        CheckConfig(bad=("brokn",), decode=0.1, all=True)
    assert "give one of them" in str(raised.value)
    with pytest.raises(ConfigError, match="write_bad and write_good name the same file"):
        CheckConfig(write_bad=Path("a.txt"), write_good=Path("./a.txt"))


def test_the_command_prints_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data/a.jpg", jpeg(1))
    write(tmp_path / "data/a.txt", "a dog runs")
    out = tmp_path / "numbers.json"
    assert cli.main(["data", "check", "--data.root", f"{tmp_path}/data", "--out", str(out)]) == 0
    assert "found in train" in capsys.readouterr().out
    assert json.loads(out.read_text())["splits"]["train"]["images"] == 1


def test_flickr8k_is_what_it_is_known_to_be() -> None:
    root = real_data("flickr8k")
    page = check_data(CheckConfig(data=SourceConfig(root=root), decode=0.02))
    assert "6,000" in page
    assert "A dog runs through the grass ." in page
