"""Any source to shards, and back."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.layouts import jpeg, write
from tests.drawn_images import write_classes
from tests.small_disk import files_of_at_most
from virtex import files
from virtex.cli import main
from virtex.data.example import Source
from virtex.data.shards.manifest import Manifest
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.sources.webdataset import WebdatasetSource
from virtex.errors import ConfigError, DataError
from virtex.pack.pack import Packed, pack
from virtex.pack.pack_options import PackConfig

NUM_TRAIN, NUM_VAL = 50, 7
CAPTIONS = {3: "zwei Hunde\nein Ball", 4: "two\x0blines\nofé 猫"}
"""Lines of some images, one of which holds what Python alone takes for the end of a line."""


def write_folder(root: Path) -> Path:
    """Write images with captions beside them, in train and val."""
    for split, number in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for index in range(number):
            stem = root / split / f"{index:02d}"
            write(stem.with_suffix(".jpg"), jpeg(index * 5))
            write(stem.with_suffix(".txt"), CAPTIONS.get(index, f"caption {index}"))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


def config_of(root: Path, out: Path, **options: Any) -> PackConfig:
    options = {"short_side": 4, "shard_size": 20, **options}
    return PackConfig(out=out, data=SourceConfig(source="folder", root=root), **options)


def packed(root: Path, out: Path, *, processes: int = 1, **options: Any) -> Packed:
    return pack(config_of(root, out, **options), processes=processes)


def shards_in(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.tar"))}


def metadata_in(out: Path) -> list[dict[str, Any]]:
    """The .json files of all shards, in their order."""
    found = []
    for path in sorted(out.rglob("*.tar")):
        with tarfile.open(path) as tar:
            files = [tar.extractfile(one) for one in tar if one.name.endswith(".json")]
            found += [json.loads(file.read()) for file in files if file is not None]
    return found


def source_of(root: Path, split: Any, source: Any = "folder") -> Source:
    config = SourceConfig(source=source, root=root)
    opened = open_source(config, split=split, needs=Needs(captions=True))
    assert opened is not None
    return opened


def test_packed_examples_are_those_of_the_source(root, tmp_path):
    result = packed(root, tmp_path / "out", short_side=0)
    assert str(result).startswith("packed 57 examples in 4 shards, ")
    for split in ("train", "val"):
        source, shards = source_of(root, split), source_of(tmp_path / "out", split, "webdataset")
        assert len(source) == len(shards)
        by_id = {example.image_id: example for example in source}
        ids = [one["id"] for one in metadata_in(tmp_path / "out" / split)]
        assert sorted(ids) == sorted(by_id)
        assert ids != sorted(ids)
        for image_id, example in zip(ids, shards, strict=True):
            assert example.captions == by_id[image_id].captions
            assert example.image == by_id[image_id].image.read_bytes()


def test_metadata_say_where_an_example_comes_from(root, tmp_path):
    packed(root, tmp_path / "out", split="val")
    one = next(each for each in metadata_in(tmp_path / "out") if each["id"] == "03.jpg")
    assert one.pop("key").startswith("00000")
    assert one == {
        "id": "03.jpg", "caption": "zwei Hunde", "captions": ["zwei Hunde", "ein Ball"],
        "status": "success", "width": 5, "height": 4, "original_width": 8, "original_height": 6,
    }  # fmt: skip


def test_captions_of_several_lines_fill_one_line_each(tmp_path):
    rows = [{"image": "a.jpg", "caption": "one\ntwo\u2028three"}]
    write(tmp_path / "data" / "a.jpg", jpeg())
    table = write(tmp_path / "data" / "rows.json", json.dumps(rows))
    data = SourceConfig(source="table", root=table)
    pack(PackConfig(out=tmp_path / "out", data=data), processes=1)
    assert WebdatasetSource(tmp_path / "out" / "train").captions(0) == ("one two\u2028three",)
    assert metadata_in(tmp_path / "out")[0]["captions"] == ["one\ntwo\u2028three"]


def test_labels_are_packed_where_there_are_no_captions(tmp_path):
    write_classes(tmp_path / "data")
    data = SourceConfig(source="classes", root=tmp_path / "data")
    pack(PackConfig(out=tmp_path / "out", data=data, split="train"), processes=1)
    found = metadata_in(tmp_path / "out")
    assert len(found) == 36
    for one in found:
        assert one["label_names"] == [one["id"].partition("/")[0]]
        assert one["labels"] == [["blue", "green", "red"].index(one["label_names"][0])]
        assert "caption" not in one
    shards = WebdatasetSource(tmp_path / "out" / "train", with_captions=False)
    assert len(shards) == 36
    assert shards[0].captions == ()


def write_boxes(root: Path, split: str, categories: list[str]) -> None:
    """Write images with a box of each category, in COCO's layout."""
    names = [{"id": number, "name": name} for number, name in enumerate(categories)]
    images = [{"id": one["id"], "file_name": f"{one['name']}.jpg"} for one in names]
    boxes = [
        {"id": one["id"], "image_id": one["id"], "category_id": one["id"], "bbox": [0, 0, 4, 4]}
        for one in names
    ]
    for one in images:
        write(root / split / one["file_name"], jpeg())
    document = {"images": images, "annotations": boxes, "categories": names}
    write(root / "annotations" / f"instances_{split}.json", json.dumps(document))


def test_labels_mean_the_same_classes_in_both_splits(tmp_path):
    root, out = tmp_path / "coco", tmp_path / "out"
    write_boxes(root, "train", ["cat", "dog"])
    write_boxes(root, "val", ["dog"])
    data = SourceConfig(source="coco", root=root)
    config = PackConfig(out=out, data=data, annotations="labels")
    with pytest.raises(DataError, match="images have different classes: cat"):
        pack(config, processes=1)
    pack(dataclasses.replace(config, split="train"), processes=1)
    with pytest.raises(ConfigError, match="val images have other classes than the train images in"):
        pack(dataclasses.replace(config, split="val"), processes=1)
    write_boxes(root, "val", ["cat", "dog"])
    pack(config, processes=1)
    assert [one["labels"] for one in metadata_in(out) if one["id"] == "1"] == [[1], [1]]


def test_drawn_scenes_can_be_packed(tmp_path):
    data = SourceConfig(source="scenes", num_images=9, num_val_images=0)
    result = pack(PackConfig(out=tmp_path / "out", data=data), processes=1)
    assert "of the images'" not in str(result)  # which had no files
    assert len(WebdatasetSource(tmp_path / "out" / "train")) == 9


def test_any_number_of_processes_gives_the_same_bytes(root, tmp_path):
    packed(root, tmp_path / "one")
    packed(root, tmp_path / "three", processes=3)
    assert shards_in(tmp_path / "one") == shards_in(tmp_path / "three")
    packed(root, tmp_path / "other", seed=1)
    assert shards_in(tmp_path / "one") != shards_in(tmp_path / "other")


def test_the_shards_of_each_split_have_a_manifest(root, tmp_path):
    (root / "train" / "11.jpg").write_bytes(b"")
    for processes in (1, 2):
        packed(root, tmp_path / str(processes), processes=processes, bad_image_limit=0.1)
    for split, number, shards in (("train", NUM_TRAIN - 1, 3), ("val", NUM_VAL, 1)):
        one, two = (Manifest.read(tmp_path / n / split / ".virtex-manifest") for n in "12")
        assert (one.num_all_kept, len(one)) == (number, shards)
        assert one.digest == two.digest
        assert one.records_path(0).is_file()


def test_members_have_neither_time_nor_owner(root, tmp_path):
    packed(root, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train" / "00000.tar") as tar:
        members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
        assert not tar.pax_headers
    assert (tmp_path / "out" / "train" / "00000.tar").stat().st_size % tarfile.RECORDSIZE == 0


def test_a_second_call_writes_only_what_is_missing(root, tmp_path):
    out = tmp_path / "out"
    packed(root, out)
    before = shards_in(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert str(packed(root, out)).endswith("all were there already")
    (out / "train" / "00001.tar").unlink()
    with (out / "train" / "00002.tar").open("ab") as file:
        file.write(b"0")
    again = packed(root, out)
    assert again.num_packed == 17 + 17
    assert shards_in(out) == before
    changed = {path.name for path, at in times.items() if path.stat().st_mtime_ns != at}
    assert changed == {"00001.tar", "00002.tar"}


def test_a_killed_call_is_continued(root, tmp_path, monkeypatch):
    packed(root, tmp_path / "whole", shard_size=2)
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(
        target=packed, args=(root, out), kwargs={"shard_size": 2}
    )
    process.start()
    deadline = time.monotonic() + 60
    while len(list((out / "train").glob("*.tar"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = packed(root, out, shard_size=2)
    assert 0 < again.num_packed < NUM_TRAIN + NUM_VAL
    assert shards_in(out) == shards_in(tmp_path / "whole")
    monkeypatch.setattr(files, "GRACE", 0.0)  # of a folder that was killed before its lock
    deadline = time.monotonic() + 60
    while list((out / "train").glob("*.tmp")) and time.monotonic() < deadline:
        files._remove_abandoned.cache_clear()  # workers outlive the killed process for a moment
        files._remove_abandoned(out / "train")
    assert list((out / "train").glob("*.tmp")) == []


@pytest.mark.parametrize(
    ("options", "change"),
    [({"quality": 80}, "quality: 90 before, 80 now"),
     ({"short_side": 0}, "short_side: 4 before, 0 now"),
     ({"shard_size": None, "shard_bytes": "1MB"}, "shard_bytes: None before, 1MB now"),
     ({"annotations": "none"}, "annotations: ['captions'] before, [] now")],
)  # fmt: skip
def test_other_options_are_refused_in_the_same_folder(options, change, root, tmp_path):
    packed(root, tmp_path / "out", split="val")
    with pytest.raises(ConfigError, match="begun with other options") as raised:
        packed(root, tmp_path / "out", **{"split": "val", **options})
    assert change in str(raised.value)


def test_other_data_are_refused_in_the_same_folder(root, tmp_path):
    packed(root, tmp_path / "out", split="val")
    write(root / "val" / "00.txt", "another caption")
    with pytest.raises(ConfigError, match=r"val shards .* other data.*\n- captions: other ones"):
        packed(root, tmp_path / "out")
    moved = shutil.move(root, tmp_path / "moved")
    write(tmp_path / "moved" / "val" / "00.txt", "caption 0")
    assert packed(moved, tmp_path / "out").num_packed == NUM_TRAIN


def test_a_folder_with_other_files_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match=r"is not empty \(train\) and has no pack.json"):
        packed(root, root)
    write(tmp_path / "out" / "pack.json", '{"version": 2}')
    with pytest.raises(DataError, match="damaged or of another version"):
        packed(root, tmp_path / "out")


def test_shards_are_not_packed_into_themselves(root, tmp_path):
    packed(root, tmp_path / "shards")
    data = SourceConfig(root=tmp_path / "shards")
    with pytest.raises(ConfigError, match=r"new lies in .*shards, whose .tar files .* beside it"):
        pack(PackConfig(tmp_path / "shards/train/new", data=data), processes=1)
    assert not (tmp_path / "shards/train/new").exists()
    pack(PackConfig(tmp_path / "new", data=data), processes=1)


def test_bad_images_are_named_counted_and_left_out(root, tmp_path, caplog):
    (root / "train" / "11.jpg").write_bytes(jpeg(11)[:-100])
    (root / "train" / "12.jpg").write_bytes(b"")
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        result = packed(root, out, processes=processes, bad_image_limit=0.04)
        assert "packed 55 examples in 4 shards" in str(result)
        assert "2 could not be read, see left_out.jsonl" in str(result)
        rows = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
        assert {row["image_id"] for row in rows} == {"11.jpg", "12.jpg"}
        assert next(row for row in rows if row["image_id"] == "12.jpg")["reason"] == "an empty file"
        keys = {one["key"] for one in metadata_in(out)}
        assert all(row["key"] not in keys and row["split"] == "train" for row in rows)
    assert caplog.text.count("left out: bad image") == 4
    assert shards_in(tmp_path / "out1") == shards_in(tmp_path / "out2")
    assert "2 could not be read" in str(packed(root, out, bad_image_limit=0.04))


def test_too_many_bad_images_end_the_command_and_keep_what_is_written(root, tmp_path):
    for number in range(9):
        (root / "train" / f"{number}3.jpg").unlink(missing_ok=True)
        write(root / "train" / f"{number}3.jpg", b"no image")
        write(root / "train" / f"{number}3.txt", "a caption")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"of 54 train images cannot be read, more than the 10.00%"):
        packed(root, out, bad_image_limit=0.1, shard_size=5)
    num_named = len((out / "left_out.jsonl").read_text().splitlines())
    assert num_named == 6  # more than 5.4
    kept = shards_in(out)
    assert packed(root, out, bad_image_limit=1, shard_size=5).num_packed < 45 + NUM_VAL
    assert kept.items() <= shards_in(out).items()


def test_a_full_disk_is_one_message_and_the_command_goes_on(root, tmp_path):
    out = tmp_path / "out"
    with (
        files_of_at_most(20_000),
        pytest.raises(DataError, match=r"cannot write .*train/00000.tar: File too large"),
    ):
        packed(root, out)
    assert shards_in(out) == {}
    packed(root, out)
    packed(root, tmp_path / "whole")
    assert shards_in(out) == shards_in(tmp_path / "whole")


def test_a_shard_has_about_the_bytes_asked_for(root, tmp_path):
    packed(root, tmp_path / "out", shard_size=None, shard_bytes="60kB", split="train")
    sizes = [len(content) for content in shards_in(tmp_path / "out").values()]
    assert len(sizes) > 2
    assert all(30_000 < size < 75_000 for size in sizes)


def test_validation_images_must_be_there_if_they_are_named(root, tmp_path):
    shutil.rmtree(root / "val")
    with pytest.raises(ConfigError, match="there are no validation images"):
        packed(root, tmp_path / "out", split="val")
    packed(root, tmp_path / "out")
    assert {name.partition("/")[0] for name in shards_in(tmp_path / "out")} == {"train"}


def test_images_that_would_be_in_both_splits_are_refused(root, tmp_path):
    data = SourceConfig(source="folder", root=root, val_root=root / "train")
    config = dataclasses.replace(config_of(root, tmp_path / "out"), data=data)
    with pytest.raises(ConfigError, match="are trained on"):
        pack(config, processes=1)
    (root / "val" / "again.jpg").symlink_to(root / "train" / "00.jpg")
    write(root / "val" / "again.txt", "a caption")
    with pytest.raises(ConfigError, match=r"^1 of the \d+ validation images would be trained on"):
        packed(root, tmp_path / "out")


KEYED: list[dict[str, Any]] = [
    {"alt": ["one", "two\nlines", "three"], "caption": "four"},
    {"alt": "five", "captions": ["six", "seven"]},
    {"caption": "eight", "id": "own"},
]


@pytest.mark.parametrize(
    "keys", [{"alt": 0.1, "caption": 0.9}, {"txt": 1, "captions": 2, "alt": 3}]
)
def test_captions_stay_under_their_keys(tmp_path, keys):
    for number, document in enumerate(KEYED):
        write(tmp_path / "data" / f"{number}.jpg", jpeg(number * 9))
        write(tmp_path / "data" / f"{number}.json", json.dumps(document))
        write(tmp_path / "data" / f"{number}.txt", f"text {number}\n")
    data = SourceConfig(source="folder", root=tmp_path / "data", caption_keys=keys)
    out = tmp_path / "out"
    pack(PackConfig(out=out, data=data), processes=1)
    before = open_source(data, split="train")
    shards = SourceConfig(source="webdataset", root=out / "train")
    manifest = dataclasses.replace(shards, root=out / "train" / ".virtex-manifest")
    for config in (shards, manifest):
        again = open_source(dataclasses.replace(config, caption_keys=keys), split="train")
        for read in ("captions", "caption_weights", "caption_keys"):
            found = sorted(str(getattr(one, read)) for one in again)
            assert found == sorted(str(getattr(one, read)) for one in before)
    assert open_source(manifest, split="train").caption_keys == tuple(keys)
    plain = {caption for one in open_source(shards, split="train") for caption in one.captions}
    if "txt" in keys:
        assert plain == {"text 0", "text 1", "text 2"}
    else:
        assert plain == {"one", "two lines", "three", "four", "five", "eight"}


def test_shards_without_the_keys_are_not_continued(tmp_path, root):
    keyed = SourceConfig(source="folder", root=root, caption_keys={"txt": 1})
    packed(root, tmp_path / "out")
    with pytest.raises(ConfigError, match="caption keys: other ones"):
        pack(dataclasses.replace(config_of(root, tmp_path / "out"), data=keyed), processes=1)


def test_the_command_prints_what_it_packed(root, tmp_path, capsys):
    out = str(tmp_path / "out")
    line = ["pack", "--data.root", str(root), "--out", out, "--processes", "1"]
    assert main(line) == 0
    assert capsys.readouterr().out.startswith("packed 57 examples in 2 shards")
    assert main([*line[:-1], "5000"]) == 2
    assert "too many: give at most 1024" in capsys.readouterr().err
