"""An index says what has changed, what it does not know, and what to do; and leaves nothing."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.shards.test_index import FAULTY, contents, ids, index
from tests.data.sources.layouts import jpeg, write, write_tar
from virtex import cli
from virtex.data.shards.store import StoreError
from virtex.errors import ConfigError, DataError


def test_a_second_index_says_what_has_changed(
    shards: Path, server: RangedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="virtex")
    index(f"s3://{BUCKET}", tmp_path / "out")
    assert "since the last index" not in caplog.text
    for name in ("d1/1.tar", "d1/3.tar", "d1/5.tar", "d0/0.tar"):
        (shards / name).unlink()
    write_tar(shards / "d0" / "2.tar", {"new.jpg": jpeg(9), "new.txt": "new"})
    write_tar(shards / "d0" / "9.tar", {"more.jpg": jpeg(9), "more.txt": "new"})
    index(f"s3://{BUCKET}", tmp_path / "out")
    texts = [one.getMessage() for one in caplog.records]
    assert "4 shards gone since the last index: d0/0.tar, d1/1.tar, d1/3.tar and 1 more" in texts
    assert "1 shard changed since the last index: d0/2.tar" in texts
    assert "1 shard new since the last index: d0/9.tar" in texts
    caplog.clear()
    index(f"s3://{BUCKET}", tmp_path / "out", caption_keys=("txt",), overwrite=True)
    assert "since the last index" not in caplog.text


def test_ids_of_no_image_are_counted_and_named(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(shards / "faulty.tar", FAULTY)
    text = "3-1\nd0/4.tar/4-0\n3-1\nnone-1\nb\nnone-2\nnone-3\nnone-4\n3-1\n"
    index(shards, keep=write(tmp_path / "keep.txt", text))
    assert "4 of the ids in" in caplog.text
    assert "such as none-1, none-2, none-3\n" in caplog.text
    caplog.clear()
    uids = np.array([(7, 8), (7, 2**63), (9, 9)], "u8,u8")
    known = f"{9:016x}{9:016x}"
    write_tar(shards / "uids.tar", {f"{known}.jpg": jpeg(), f"{known}.txt": "text"})
    np.save(tmp_path / "keep.npy", uids)
    assert ids(index(shards, keep=tmp_path / "keep.npy")) == [f"uids.tar/{known}"]
    assert f"2 of the ids in {tmp_path / 'keep.npy'} belong to no image" in caplog.text
    assert f"{7:016x}{8:016x}, {7:016x}{2**63:016x}" in caplog.text


def test_a_list_of_unknown_ids_leaves_the_manifest(shards: Path, tmp_path: Path) -> None:
    before = contents(index(shards))
    path = write(tmp_path / "keep.txt", "train/d1/3.tar/3-1\n")
    with pytest.raises(DataError, match=r"such as train/d1/3\.tar/3-1"):
        index(shards, keep=path)
    assert contents(shards / ".virtex-manifest") == before


def test_an_index_of_nothing_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there are no \.tar files"):
        index(tmp_path / "empty")
    with pytest.raises(ConfigError, match="holds no id"):
        index(shards, tmp_path / "a" / "out", keep=write(tmp_path / "keep.txt", "\n"))
    with pytest.raises(StoreError, match="is not a folder"):
        index(tmp_path / "none", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "keep.txt", "shards"]
    assert not list((tmp_path / "empty").iterdir())
    assert sorted(path.name for path in shards.iterdir()) == ["d0", "d1"]


def test_all_shards_that_cannot_be_opened_are_named_with_the_remedy(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shards / "a.tar").symlink_to(shards / "gone.tar")
    (shards / "d0" / "b.tar").symlink_to("b.tar")
    secret = str(shards / "d1" / "1.tar")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != secret)
    with pytest.raises(StoreError) as raised:
        index(shards)
    for text in ("3 shards in", "remove these links", "a.tar is a link to", "d0/b.tar is a link",
                 "d1/1.tar may not be read", "chmod"):  # fmt: skip
        assert text in str(raised.value)
    assert not (shards / ".virtex-manifest").exists()


def test_an_expanded_pattern_is_to_be_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    urls = [f"https://host/path/{number:03}.tar" for number in range(3)]
    assert cli.main(["index", *urls, "--out", "manifest"]) == 2
    error = capsys.readouterr().err
    assert "3 shards were given" in error
    assert "quote the pattern, as in 'https://host/path/{00000..00331}.tar'" in error
    assert cli.main(["index", "data/0.tar", "data/1.tar"]) == 2
    assert "name their folder, data;" in capsys.readouterr().err


@pytest.mark.parametrize(
    "held_out", ["val/00000.tar", "cc3m-validation-0000.tar", "a/Test2015/7.tar", "eval_1.tar"]
)
def test_shards_named_as_held_out_among_others_are_warned_of(
    shards: Path, held_out: str, caplog: pytest.LogCaptureFixture
) -> None:
    index(shards)
    assert "by their names" not in caplog.text
    others = len(list(shards.rglob("*.tar")))
    write_tar(shards / held_out, {"new.jpg": jpeg(9), "new.txt": "new"})
    index(shards)
    assert (
        f"1 of {others + 1} shards are of validation or test images by their names" in caplog.text
    )
    assert f"({held_out}), and are taken with the others. Index the training" in caplog.text
    caplog.clear()
    index((shards / held_out).parent, out=shards.parent / "other")
    alone = (shards / held_out).parent != shards
    assert ("by their names" in caplog.text) == (not alone)
