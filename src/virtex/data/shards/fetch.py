"""Fetching of one shard from its store into the cache, checked before any process can see it."""

import contextlib
import os
import shutil
from collections.abc import Container
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from virtex import files
from virtex.data.checks import quoted
from virtex.data.shards.cache import DONE, SHARD, ShardCache
from virtex.data.shards.locks import Lock
from virtex.data.shards.manifest import Manifest, Shard
from virtex.data.shards.records import SUFFIX, Records, write_records
from virtex.data.shards.store import PIECE, Store
from virtex.data.sources.tar_members import BrokenShardError
from virtex.errors import DataError

NUM_PARALLEL = 8
"""Pieces of a shard that are read at once, each of some megabytes."""
RECORD_BYTES, RECORDS_BYTES = 160, 2**16
"""Bytes of room for the record of an example, most of it for key and caption, and for each file."""


class ContentError(DataError):
    """A downloaded shard whose content is not that of the manifest."""


class Remote(NamedTuple):
    """A shard of a store."""

    store: Store
    manifest: Manifest
    number: int
    """Index of the shard in the manifest."""

    @property
    def shard(self) -> Shard:
        """What the manifest knows of it."""
        return self.manifest.shard(self.number)

    def __str__(self) -> str:
        return f"{quoted(self.manifest.names[self.number])} at {self.manifest.root}"


def fetch(
    cache: ShardCache,
    remote: Remote,
    *,
    own: Container[str] = (),
    num_parallel: int = NUM_PARALLEL,
) -> Lock | None:
    """Return a lock that holds a shard in the cache, which is downloaded if it is not there.

    What was downloaded is kept if that fails, so that the next try goes on.

    Args:
        own: Digests of the data sets in use, whose shards are evicted last.
        num_parallel: Pieces that are read at once.

    Returns:
        None if another process is about to download or evict it.

    Raises:
        StoreError: The shard cannot be read, or has changed.
        ContentError: Its content is not that of the manifest.
        CacheFullError: There is no room for it.
        DataError: It is broken, or holds other examples than the manifest says.
        OSError: The cache cannot be written.
    """
    shard = remote.shard
    claimed = cache.claim(shard.sha256)
    if claimed is None:
        return None
    try:
        if not cache.has(shard.sha256):
            part = cache.reserve(
                shard.sha256,
                shard_bytes=shard.size,
                records_bytes=_records_bytes(remote),
                own=own,
            )
            download(remote.store, shard, part, num_parallel=num_parallel)
            _check(cache, remote, part)
            _add_records(remote, part)
            cache.commit(shard.sha256)
        return cache.hold_claimed(claimed, shard.sha256)
    except BaseException:
        cache.give_up(claimed, shard.sha256)
        raise


def download(store: Store, shard: Shard, part: Path, *, num_parallel: int) -> None:
    """Read the missing pieces of a shard in parallel; each is noted once it is written.

    Raises:
        StoreError: A piece cannot be read; those before are kept.
    """
    num_pieces = -(-shard.size // PIECE)
    noted = (part / DONE).read_bytes()[:num_pieces].ljust(num_pieces, b"\0")
    with (
        (part / SHARD).open("rb+", buffering=0) as file,
        (part / DONE).open("rb+", buffering=0) as done,
    ):

        def read(number: int) -> None:
            start = number * PIECE
            end = min(start + PIECE, shard.size)
            _write_all(file.fileno(), store.read(shard.name, start, end, etag=shard.etag), start)
            os.pwrite(done.fileno(), b"\1", number)

        with ThreadPoolExecutor(num_parallel) as pool:
            pieces = [
                pool.submit(read, number) for number in range(num_pieces) if not noted[number]
            ]
            wait(pieces, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        for piece in pieces:
            if not piece.cancelled():
                piece.result()


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _check(cache: ShardCache, remote: Remote, part: Path) -> None:
    """Check the content of a download; another one is thrown away."""
    if files.sha256(part / SHARD) != remote.shard.sha256:
        cache.discard(remote.shard.sha256)
        raise ContentError(
            f"{remote} has another content than when it was indexed. Index the shards again by "
            "virtex index."
        )


def _records_bytes(remote: Remote) -> int:
    """Return how much room the records of a shard need."""
    path = remote.manifest.records_path(remote.number)
    with contextlib.suppress(OSError):
        if path is not None:
            return path.stat().st_size
    return RECORD_BYTES * remote.shard.num_examples + RECORDS_BYTES


def _add_records(remote: Remote, part: Path) -> None:
    """Put the records beside a shard: those of the manifest, or new ones where it has none."""
    path, own = part / f"{SHARD}{SUFFIX}", remote.manifest.records_path(remote.number)
    path.unlink(missing_ok=True)
    try:
        if own is not None and _fits(own, remote.shard):
            shutil.copyfile(own, path)
        else:
            write_records(part / SHARD, path)
    except BrokenShardError as error:
        raise DataError(f"{remote} is broken: {error}. Index the shards again.") from error
    if not _fits(path, remote.shard):
        raise DataError(
            f"{remote} does not hold the {remote.shard.num_examples:,} examples that its manifest "
            "says. Index the shards again by virtex index."
        )


def _fits(path: Path, shard: Shard) -> bool:
    """Return whether a file holds the records of a shard."""
    try:
        records = Records(path)
    except DataError:
        return False
    return len(records) == shard.num_examples and records.shard_size == shard.size
