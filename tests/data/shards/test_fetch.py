"""A shard arrives whole or not at all, and what came once is not read again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.data.shards.ranged_server import RangedServer
from tests.data.shards.served import EXAMPLES, manifest_of, shard_of, write_shards
from virtex.data.shards import fetch as module
from virtex.data.shards.cache import ShardCache
from virtex.data.shards.fetch import ContentError, Remote, fetch
from virtex.data.shards.manifest import Manifest
from virtex.data.shards.records import Records, write_records
from virtex.data.shards.store import Patience, StoreError, open_store
from virtex.errors import DataError

PIECE = 4096


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", PIECE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangedServer]:
    write_shards(tmp_path / "store", 1, num_bytes=20_000)
    with RangedServer(tmp_path / "store") as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10**6)


def remote(server: RangedServer, manifest: Manifest | None = None) -> Remote:
    manifest = manifest or manifest_of(server)
    return Remote(open_store(manifest.root, patience=Patience(num_tries=1)), manifest, 0)


def is_empty(cache: ShardCache) -> bool:
    return not cache.entries()


def test_a_shard_is_fetched_once_in_pieces_with_its_records(
    server: RangedServer, cache: ShardCache
) -> None:
    wanted = remote(server)
    with fetch(cache, wanted) as lock:  # type: ignore[union-attr]
        assert not lock.closed
    path = cache.shard_path(wanted.shard.sha256)
    assert path.read_bytes() == (server.folder / "000.tar").read_bytes()
    assert len(Records(path.parent / f"{path.name}.safetensors")) == EXAMPLES
    assert sorted(child.name for child in path.parent.iterdir()) == [
        "shard.tar",
        "shard.tar.safetensors",
    ]
    num_pieces = -(-wanted.shard.size // PIECE)
    assert server.count("GET") == num_pieces
    assert fetch(cache, wanted) is not None
    assert server.count("GET") == num_pieces


def test_the_records_of_a_manifest_are_taken(
    server: RangedServer, cache: ShardCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Manifest.of(server.url, [shard_of(server.folder / "000.tar")], records_place="records").write(
        tmp_path / "manifest"
    )
    records = tmp_path / "manifest" / "records" / "000.tar.safetensors"
    records.parent.mkdir()
    write_records(server.folder / "000.tar", records)
    monkeypatch.delattr(module, "write_records")
    assert fetch(cache, remote(server, Manifest.read(tmp_path / "manifest"))) is not None


def test_after_a_cut_answer_only_what_is_missing_is_read(
    server: RangedServer, cache: ShardCache
) -> None:
    wanted = remote(server)
    server.cut(1)
    with pytest.raises(StoreError) as raised:
        fetch(cache, wanted, num_parallel=1)
    assert raised.value.may_pass
    assert cache.num_bytes() > wanted.shard.size
    assert fetch(cache, wanted) is not None
    assert server.count("GET") == 1 + -(-wanted.shard.size // PIECE)


def test_pieces_that_came_are_not_read_again(server: RangedServer, cache: ShardCache) -> None:
    wanted = remote(server)
    original, calls = wanted.store.read, []

    class Breaks:
        def read(self, name: str, start: int, end: int, *, etag: str = "") -> bytes:
            calls.append(start)
            if len(calls) == 4:
                raise StoreError("broken")
            return original(name, start, end, etag=etag)

    with pytest.raises(StoreError, match="broken"):
        fetch(cache, wanted._replace(store=Breaks()), num_parallel=1)  # type: ignore[arg-type]
    assert fetch(cache, wanted._replace(store=Breaks())) is not None  # type: ignore[arg-type]
    assert len(calls) == -(-wanted.shard.size // PIECE) + 1


def test_a_shard_of_which_somebody_removed_files_is_fetched_again(
    server: RangedServer, cache: ShardCache
) -> None:
    wanted = remote(server)
    fetch(cache, wanted).close()  # type: ignore[union-attr]
    path = cache.shard_path(wanted.shard.sha256)
    path.unlink()
    with fetch(cache, wanted):  # type: ignore[union-attr]
        assert path.read_bytes() == (server.folder / "000.tar").read_bytes()


def test_a_process_killed_before_it_names_a_shard_harms_no_other(
    server: RangedServer, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = remote(server)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetch(cache, wanted)
    (part,) = cache.folder.glob("*.part")
    (part / "done").unlink(missing_ok=True)
    with fetch(cache, wanted):  # type: ignore[union-attr]
        assert cache.has(wanted.shard.sha256)


def test_an_object_that_has_changed_is_not_tried_again(
    server: RangedServer, cache: ShardCache
) -> None:
    wanted = remote(server)
    (server.folder / "000.tar").write_bytes(b"x" * wanted.shard.size)
    with pytest.raises(StoreError, match=r"'?000\.tar.* has changed .*Index the shards") as raised:
        fetch(cache, wanted)
    assert not raised.value.may_pass


def test_other_content_without_an_etag_is_thrown_away(
    server: RangedServer, cache: ShardCache
) -> None:
    path = server.folder / "000.tar"
    manifest = Manifest.of(server.url, [shard_of(path, etag="")])
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ContentError, match=r"000\.tar.* at http.* has another content"):
        fetch(cache, remote(server, manifest))
    assert is_empty(cache)


def test_another_number_of_examples_is_named(server: RangedServer, cache: ShardCache) -> None:
    shard = shard_of(server.folder / "000.tar")._replace(num_examples=5, num_kept=5)
    with pytest.raises(DataError, match="does not hold the 5 examples"):
        fetch(cache, remote(server, Manifest.of(server.url, [shard])))


def test_a_damaged_download_of_an_earlier_process_is_found(
    server: RangedServer, cache: ShardCache
) -> None:
    wanted = remote(server)
    part = cache.reserve(wanted.shard.sha256, shard_bytes=wanted.shard.size, records_bytes=0)
    (part / "done").write_bytes(np.ones(99, np.uint8).tobytes())
    with pytest.raises(ContentError):
        fetch(cache, wanted)
    assert fetch(cache, wanted) is not None
