"""A shard that cannot be read for the moment ends the index, and is no broken one."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.data.shards.test_index import contents, index
from virtex.data.shards import index as module
from virtex.data.shards.manifest import Manifest
from virtex.errors import DataError


def test_a_shard_that_goes_while_it_is_indexed_is_not_broken(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._read_shards

    def removing(*arguments: Any) -> None:
        (shards / "d0" / "2.tar").unlink()
        real(*arguments)

    monkeypatch.setattr(module, "_read_shards", removing)
    with pytest.raises(DataError, match=r"d0/2\.tar cannot be read, .*No such file .*goes on with"):
        index(shards)
    assert not (shards / ".virtex-manifest" / "manifest.json").exists()
    monkeypatch.setattr(module, "_read_shards", real)
    found = Manifest.read(index(shards))
    assert (len(found), found.left_out) == (5, ())


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize(
    "call", ["shards.shard_facts.open_regular", "sources.tar_members.open_regular",
             "sources.tar_members.os.pread", "shards.faults.os.pread"]
)  # fmt: skip
def test_a_disk_that_fails_breaks_no_shard(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    whole = index(shards, tmp_path / "whole")

    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(f"virtex.data.{call}", failing)
        message = rf"d0/0\.tar cannot be read, which is no fault .*{os.strerror(number)}.*goes on"
        with pytest.raises(DataError, match=message):
            index(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert contents(index(shards, tmp_path / "out")) == contents(whole)


def test_what_is_no_file_is_a_broken_shard(shards: Path) -> None:
    os.mkfifo(shards / "pipe.tar")
    found = Manifest.read(index(shards))
    assert [tuple(one) for one in found.left_out] == [("pipe.tar", "a named pipe, not a file")]
