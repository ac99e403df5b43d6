"""A local shard is read only while it is the one that was indexed."""

import os
import pickle
import shutil
from pathlib import Path

import pytest

from tests.data.sources.layouts import jpeg, write_tar
from virtex.data.shards.index import IndexConfig, index_shards
from virtex.data.shards.manifest import Manifest
from virtex.data.sources import shard_state
from virtex.data.sources.shards import ShardedSource
from virtex.errors import DataError


def write_one(path: Path, letter: str) -> None:
    """A shard of two images, of the same size whatever the letter."""
    files: dict[str, bytes | str] = {}
    for key in "01":
        files |= {f"{letter}{key}.jpg": jpeg(7), f"{letter}{key}.txt": f"{letter} {key}"}
    write_tar(path, files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "ab":
        write_one(tmp_path / "shards" / f"{name}.tar", name)
    index_shards(IndexConfig(root=str(tmp_path / "shards")), processes=1)
    return tmp_path / "shards"


def opened(root: Path) -> ShardedSource:
    return ShardedSource(Manifest.read(root / ".virtex-manifest"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is hashed from now on."""
    found, digest = list[str](), shard_state.hashlib.file_digest

    def file_digest(file: object, name: str) -> object:
        found.append(file.name)  # type: ignore[attr-defined]
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_state.hashlib, "file_digest", file_digest)
    return found


@pytest.mark.parametrize("has_read", [False, True])
@pytest.mark.parametrize("what", ["captions", "examples"])
def test_a_shard_replaced_by_one_of_the_same_size_is_named(
    root: Path, has_read: bool, what: str
) -> None:
    source, size = opened(root), (root / "b.tar").stat().st_size
    if has_read:
        assert source[2].captions == ("b 0",)
    write_one(root / "other" / "c.tar", "c")
    (root / "other" / "c.tar").replace(root / "b.tar")
    assert (root / "b.tar").stat().st_size == size
    expected = rf"b.tar has changed since it was indexed. Index .* by `virtex index {root} --out "
    with pytest.raises(DataError, match=expected):
        source.captions(2) if what == "captions" else source[2]
    assert source[0].captions == ("a 0",)


def test_a_copy_is_hashed_once_for_all_processes(
    root: Path, tmp_path: Path, hashed: list[str]
) -> None:
    assert len([*opened(root)]) == 4
    assert hashed == []
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    source = opened(tmp_path / "copy")
    assert [one.captions[0] for one in source] == ["a 0", "a 1", "b 0", "b 1"]
    assert [one.captions[0] for one in pickle.loads(pickle.dumps(source))][1] == "a 1"
    assert len([*opened(tmp_path / "copy")]) == 4
    assert len(hashed) == 2


def test_a_mark_of_another_content_or_time_counts_for_nothing(
    root: Path, tmp_path: Path, hashed: list[str]
) -> None:
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    marks = tmp_path / "copy" / ".virtex-manifest" / "records"
    assert [*opened(tmp_path / "copy")]
    status = (tmp_path / "copy" / "a.tar").stat()
    (marks / "a.tar.checked").write_text(f"{status.st_size} {status.st_mtime_ns:x} {'0' * 64}")
    (marks / "b.tar.checked").write_bytes(b"\xff" * 2000)
    os.utime(tmp_path / "copy" / "b.tar")
    assert [*opened(tmp_path / "copy")]
    assert len(hashed) == 4


def test_a_manifest_that_cannot_be_written_is_read(
    root: Path, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)

    def write(*arguments: object, **options: object) -> None:
        raise DataError("read-only")

    monkeypatch.setattr(shard_state.files, "write", write)
    source = opened(tmp_path / "copy")
    assert len([*source, *source]) == 8
    assert len(hashed) == 2
