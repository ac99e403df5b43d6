"""The cache stays within its bytes, evicts nothing that is held, and tears nothing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from virtex.data.shards import cache as module
from virtex.data.shards.cache import CacheFullError, Entry, ShardCache, eviction_order
from virtex.data.shards.locks import Lock
from virtex.errors import ConfigError

A, B, C, D = (letter * 64 for letter in "abcd")


def put(cache: ShardCache, digest: str, num_bytes: int = 100, *, own: str = "") -> Lock:
    """Put a shard into the cache, and hold it."""
    claimed = cache.claim(digest)
    assert claimed is not None
    try:
        part = cache.reserve(digest, shard_bytes=num_bytes, records_bytes=0, own=own)
    except CacheFullError:
        cache.give_up(claimed, digest)
        raise
    (part / module.SHARD).write_bytes(digest[:1].encode() * num_bytes)
    cache.commit(digest)
    lock = cache.hold_claimed(claimed, digest)
    assert lock is not None
    return lock


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 300)


def test_the_least_recently_used_of_others_go_before_the_most_recently_used_of_ours() -> None:
    entries = [
        Entry("ours, not used yet", 1, False, 0.0),
        Entry("ours, in the last epoch", 1, False, 5.0),
        Entry("ours, just now", 1, False, 9.0),
        Entry("of others, lately", 1, False, 8.0),
        Entry("of others, long ago", 1, False, 2.0),
        Entry("unfinished", 1, True, 9.5),
    ]
    own = {entry.digest for entry in entries if entry.digest.startswith("ours")}
    assert [entry.digest for entry in eviction_order(entries, own)] == [
        "unfinished",
        "of others, long ago",
        "of others, lately",
        "ours, just now",
        "ours, in the last epoch",
        "ours, not used yet",
    ]


def test_only_what_is_not_held_is_evicted(cache: ShardCache) -> None:
    held, free, later = put(cache, A), put(cache, B), put(cache, C)
    free.close()
    put(cache, D)
    assert [cache.has(each) for each in (A, B, C, D)] == [True, False, True, True]
    assert cache.num_bytes() == 300
    for lock in (held, later):
        lock.close()


def test_without_room_the_remedy_is_named_and_nothing_is_left(cache: ShardCache) -> None:
    locks = [put(cache, A), put(cache, B, 150)]
    with pytest.raises(CacheFullError, match=r"no room for 100 bytes more: .* leave 50 of its 300"):
        put(cache, C)
    assert sorted(path.name for path in cache.folder.glob("*.*")) == [f"{A}.lock", f"{B}.lock"]
    for lock in locks:
        lock.close()


def test_a_reader_goes_on_after_its_shard_was_evicted(cache: ShardCache) -> None:
    put(cache, A).close()
    with cache.shard_path(A).open("rb", buffering=0) as file:
        put(cache, B, 300).close()
        assert not cache.has(A)
        assert file.read() == b"a" * 100


def test_a_shard_is_claimed_by_one_process_at_a_time(cache: ShardCache) -> None:
    claimed = cache.claim(A)
    assert claimed is not None
    assert cache.claim(A) is None
    assert cache.hold(A) is None
    cache.give_up(claimed, A)
    with put(cache, A):
        assert cache.claim(A) is None
        assert cache.hold(A) is not None


def test_an_unfinished_shard_counts_whole_is_continued_and_is_evicted_first(
    cache: ShardCache,
) -> None:
    put(cache, B).close()
    claimed = cache.claim(A)
    assert claimed is not None
    part = cache.reserve(A, shard_bytes=120, records_bytes=30)
    assert cache.num_bytes() == 250
    (part / module.DONE).write_bytes(b"\1")
    claimed.close()  # as by a kill
    assert cache.reserve(A, shard_bytes=120, records_bytes=30) == part
    assert (part / module.DONE).read_bytes() == b"\1"
    put(cache, C).close()
    assert [cache.has(B), part.exists(), cache.has(C)] == [True, False, True]


def disk_of(free: int, cache: ShardCache) -> Callable[[int, int], None]:
    def allocate(descriptor: int, num_bytes: int) -> None:
        if cache.num_bytes() + num_bytes > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, num_bytes)

    return allocate


def test_a_full_disk_evicts_and_then_says_what_to_do(
    cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "allocate", disk_of(200, cache))
    put(cache, A).close()
    locks = [put(cache, B), put(cache, C)]
    assert not cache.has(A)
    with pytest.raises(CacheFullError, match=r"no room for 100 .*No space left.*cache_dir"):
        put(cache, D)
    assert sorted(path.name for path in cache.folder.iterdir() if path.is_dir()) == [B, C]
    for lock in locks:
        lock.close()


def test_a_smaller_limit_is_met_at_the_start(cache: ShardCache) -> None:
    for digest in (A, B, C):
        put(cache, digest).close()
    smaller = ShardCache(cache.folder, 100)
    smaller.tidy()
    assert smaller.num_bytes() == 100
    assert len(list(cache.folder.glob("*.lock"))) == 1


def test_a_file_system_without_locks_is_an_error(
    cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Lock, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ConfigError, match=r"cannot be locked \(No locks.*local disk by --data"):
        cache.claim(A)
