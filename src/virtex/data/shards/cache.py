"""The cache of a node: shards of remote stores on a local disk, for all processes and runs.

    FOLDER/SHA256/shard.tar    a finished shard, and its records beside it
    FOLDER/SHA256.part/        the same while it is downloaded, with its full size from the start
    FOLDER/SHA256.lock         locked to download or evict a shard; shared to keep it
    FOLDER/lock                locked while room is made
    FOLDER/short               touched by a process that finds no room for a shard in use
    FOLDER/fillers/            requests to the processes that fill the cache (see `exchange`)

A shard is named by its content, so a copy of a data set at another URL, or another manifest of the
same shards, finds what is there. Locks end with their process: after a kill nothing is held, and
what was being downloaded is continued by the next process that needs it, or evicted.

Readers lock nothing, since an open file stays readable after it is evicted. One that comes too late
to open it requests it again.

Which shard is evicted. An epoch uses every shard once, in an order of its own. A shard that was
just used is not needed before the next epoch, and one that was not used for long is needed in this
one: evicting the least recently used takes just the wrong ones. A cache of half the shards then has
15 % of what an epoch needs, and 48 % if the most recently used are evicted
(benchmarks/web_scale_cache.py). So first go abandoned downloads, then shards of other data sets,
the least recently used first, then shards of this one, the most recently used first.
"""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from virtex.data.shards.locks import Lock, share_lock, take_lock
from virtex.data.shards.records import SUFFIX
from virtex.errors import DataError

SHARD = "shard.tar"
DONE = "done"
"""File of an unfinished shard, with one byte for each piece: 1 once the piece is written."""
NAME = re.compile(r"([0-9a-f]{64})(\.part)?")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHORT_SECONDS = 5.0
"""Seconds for which all processes keep no more than what they use after one found no room."""


class CacheFullError(DataError):
    """A cache without room for a shard, until others are released."""


class Entry(NamedTuple):
    """A shard in the cache."""

    digest: str
    size: int
    """Size in bytes, with its records."""
    is_part: bool
    """Whether it is unfinished."""
    used: float
    """Time at which its last use ended; 0 before."""


class ShardCache:
    """Shards on a local disk, at most `max_bytes` of them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder.absolute(), max_bytes
        self._sizes: dict[str, int] = {}

    def shard_path(self, digest: str) -> Path:
        """Return the path of a finished shard, which may be there or not."""
        return self.folder / digest / SHARD

    def has(self, digest: str) -> bool:
        """Return whether a shard is there."""
        return self.shard_path(digest).exists()

    def hold(self, digest: str) -> Lock | None:
        """Keep a shard from eviction until the lock is closed; None if it is not there."""
        if not self.has(digest):
            return None
        lock = take_lock(self._lock_path(digest), shared=True)
        return None if lock is None else self._held(lock, digest)

    def claim(self, digest: str) -> Lock | None:
        """Take the right to download a shard; None if another process has it or holds it."""
        return take_lock(self._lock_path(digest))

    def hold_claimed(self, claimed: Lock, digest: str) -> Lock | None:
        """Hold a finished shard in place of its claim; None if it was evicted in between."""
        share_lock(claimed)
        return self._held(claimed, digest)

    def mark_used(self, digest: str) -> None:
        """Note that the use of a shard ends now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / digest)

    def reserve(
        self, digest: str, *, shard_bytes: int, records_bytes: int, own: Container[str] = ()
    ) -> Path:
        """Return the folder of a claimed shard, with room on the disk; others may be evicted.

        A download that was interrupted goes on in it.

        Args:
            own: Digests of the data sets in use, whose shards are evicted last.

        Raises:
            CacheFullError: There is no room.
            OSError: The folder cannot be written.
        """
        part = self._part(digest)
        with contextlib.suppress(OSError):
            if (part / DONE).exists() and (part / SHARD).stat().st_size == shard_bytes:
                return part
        with self.changing():
            shutil.rmtree(part, ignore_errors=True)
            self._make_room(shard_bytes + records_bytes, own)
            self._allocate(part, shard_bytes, records_bytes, own)
        return part

    def commit(self, digest: str) -> None:
        """Let a claimed shard be found, once it is on the disk."""
        part = self._part(digest)
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # else a power failure could leave zeros of the full size
        (part / DONE).unlink(missing_ok=True)
        os.utime(part, (0, 0))  # not used yet
        shutil.rmtree(self.folder / digest, ignore_errors=True)  # if somebody removed its shard
        part.rename(self.folder / digest)

    def discard(self, digest: str) -> None:
        """Remove what there is of a claimed shard that is unfinished."""
        shutil.rmtree(self._part(digest), ignore_errors=True)

    def give_up(self, claimed: Lock, digest: str) -> None:
        """End a claim without a shard; an unfinished download is left for the next one."""
        if not self._part(digest).exists() and not self.has(digest):
            self._lock_path(digest).unlink(missing_ok=True)
        claimed.close()

    def entries(self) -> list[Entry]:
        """Return all shards of the cache, unfinished ones included."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as items:
            for item in items:
                if match := NAME.fullmatch(item.name):
                    with contextlib.suppress(FileNotFoundError):  # evicted or finished meanwhile
                        found.append(self._entry(Path(item.path), match[1], bool(match[2])))
        return found

    def num_bytes(self) -> int:
        """Return the bytes of all shards, unfinished ones with the size that they will have."""
        return sum(entry.size for entry in self.entries())

    def tidy(self) -> None:
        """Bring an earlier cache within its limit, and remove locks of shards that have left."""
        with self.changing():
            with contextlib.suppress(CacheFullError):
                self._make_room(0, ())
            for path in self.folder.glob("*.lock"):
                digest = path.name.removesuffix(".lock")
                if not self.has(digest) and (lock := self.claim(digest)) is not None:
                    self.give_up(lock, digest)

    def report_short(self) -> None:
        """Let all processes release what they do not use yet, for some seconds."""
        with contextlib.suppress(OSError):
            (self.folder / "short").touch()

    def is_short(self) -> bool:
        """Return whether a process lately found no room for a shard in use."""
        try:
            return time.time() - (self.folder / "short").stat().st_mtime < SHORT_SECONDS
        except OSError:
            return False

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Exclude other processes that make room, until the block ends."""
        lock = take_lock(self.folder / "lock", wait=True)
        assert lock is not None
        with lock:
            yield

    def _entry(self, path: Path, digest: str, is_part: bool) -> Entry:
        if is_part or digest not in self._sizes:
            size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
            if not is_part:
                self._sizes[digest] = size  # the content determines it
        else:
            size = self._sizes[digest]
        return Entry(digest, size, is_part, path.stat().st_mtime)

    def _held(self, lock: Lock, digest: str) -> Lock | None:
        if self.has(digest):
            return lock
        lock.close()
        return None

    def _make_room(self, num_bytes: int, own: Container[str]) -> None:
        """Evict until `num_bytes` more are within the limit."""
        entries = self.entries()
        total = sum(entry.size for entry in entries) + num_bytes
        for entry in eviction_order(entries, own):
            if total <= self.max_bytes:
                return
            if self._evict(entry):
                total -= entry.size
        if total > self.max_bytes:
            raise CacheFullError(
                f"the cache {self.folder} has no room for {num_bytes:,} bytes more: the shards in "
                f"use leave {max(self.max_bytes - total + num_bytes, 0):,} of its "
                f"{self.max_bytes:,}. Give it more by --data.cache_size, or another folder by "
                "--data.cache_dir."
            )

    def _allocate(
        self, part: Path, shard_bytes: int, records_bytes: int, own: Container[str]
    ) -> None:
        """Take the room of a shard on the disk, where others are evicted if it is full."""
        while True:
            try:
                part.mkdir(exist_ok=True)
                (part / DONE).touch()
                with (part / f"{SHARD}{SUFFIX}").open("wb") as file:
                    file.truncate(records_bytes)
                with (part / SHARD).open("wb") as file:
                    allocate(file.fileno(), shard_bytes)
                return
            except OSError as error:
                shutil.rmtree(part, ignore_errors=True)
                if error.errno not in FULL:
                    raise
                if not any(self._evict(one) for one in eviction_order(self.entries(), own)):
                    raise self.full(shard_bytes, error) from error

    def full(self, num_bytes: int, error: OSError) -> CacheFullError:
        """Return the error that says that the disk is full."""
        return CacheFullError(
            f"the disk of the cache {self.folder} has no room for {num_bytes:,} bytes more "
            f"({error.strerror}). Free some space there, or choose another --data.cache_dir."
        )

    def _evict(self, entry: Entry) -> bool:
        """Remove a shard unless a process holds or downloads it; return whether it is gone."""
        lock = self.claim(entry.digest)
        if lock is None:
            return False
        with lock:
            part, shard = self._part(entry.digest), self.folder / entry.digest
            if not entry.is_part:
                with contextlib.suppress(FileNotFoundError):
                    shard.rename(part)  # so that no reader finds half of it
            shutil.rmtree(part, ignore_errors=True)
            if not shard.exists():
                self._lock_path(entry.digest).unlink(missing_ok=True)
        return True

    def _part(self, digest: str) -> Path:
        return self.folder / f"{digest}.part"

    def _lock_path(self, digest: str) -> Path:
        return self.folder / f"{digest}.lock"


def eviction_order(entries: Iterable[Entry], own: Container[str]) -> list[Entry]:
    """Return shards as they are to be evicted: see this module's docstring for why.

    Args:
        own: Digests of the data sets in use.
    """

    def key(entry: Entry) -> tuple[int, float]:
        if entry.is_part:
            return 0, entry.used
        return (2, -entry.used) if entry.digest in own else (1, entry.used)

    return sorted(entries, key=key)


def allocate(descriptor: int, num_bytes: int) -> None:
    """Give a file its size, and take the room on the disk where the system can."""
    os.ftruncate(descriptor, num_bytes)
    if num_bytes and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
