"""Whether a local shard is still the one that was indexed: by size and time, or else by content.

A copy has another modification time, and so has a shard that was replaced by one of the same size.
Such a shard is hashed once, at its first use; a file beside its records tells later processes.
"""

import contextlib
import hashlib
import io
import logging
import os
from pathlib import Path

from virtex import files
from virtex.data.shards.manifest import Manifest
from virtex.data.shards.records import Records
from virtex.errors import DataError

log = logging.getLogger("virtex")
SUFFIX = ".checked"
"""Suffix of the file that says for which modification time a shard was hashed."""
MAX_BYTES = 1000


class ShardStates:
    """The states of a manifest's local shards for which their content is known to be that of it."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._known: dict[int, int] = {}
        self._has_said = False

    def is_indexed(self, shard: int, records: Records, file: io.FileIO) -> bool:
        """Return whether an open shard has the content that was indexed."""
        status = os.fstat(file.fileno())
        if status.st_size != int(self.manifest.sizes[shard]):
            return False
        if self._known.get(shard) == status.st_mtime_ns:
            return True
        stamp = f"{status.st_size} {status.st_mtime_ns:x}"
        if records.metadata.get("stamp") != stamp and not self._has_content(shard, stamp, file):
            return False
        self._known[shard] = status.st_mtime_ns
        return True

    def _has_content(self, shard: int, stamp: str, file: io.FileIO) -> bool:
        """Return whether a shard was hashed in this state, or has the right SHA-256 now."""
        sha256 = self.manifest.digests[shard].tobytes().hex()
        path, text = self._path(shard), f"{stamp} {sha256}"
        with contextlib.suppress(DataError):
            if path is not None and files.read_text(path, most=MAX_BYTES) == text:
                return True
        if not self._has_said:
            self._has_said = True
            log.info(
                "shards in %s have other modification times than when they were indexed: each is "
                "hashed once, at its first use",
                self.manifest.root,
            )
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            return False
        with contextlib.suppress(DataError):  # read-only: the next process hashes it again
            if path is not None:
                files.write(path, text, durable=False)
        return True

    def _path(self, shard: int) -> Path | None:
        records = self.manifest.records_path(shard)
        return None if records is None else records.with_suffix(SUFFIX)
