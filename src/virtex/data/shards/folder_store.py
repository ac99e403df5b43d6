"""Shards in a folder of this machine, with the same calls as those of an object store."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from virtex.data.checks import path_inside, quoted
from virtex.data.image_files import walk
from virtex.data.shards.store_types import PIECE, Stored, StoreError, is_shard, raise_unreadable
from virtex.files import open_regular


class FolderStore:
    """Shards in a folder of this machine; their ETags are modification times."""

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder.absolute()
        self.root = str(self.folder)
        self._folder = folder.absolute()

    def list(self) -> Iterator[Stored]:
        """Yield all *.tar, sorted; see `Store`."""
        if not self._folder.is_dir():
            raise StoreError(f"{self.root} is not a folder. Name the folder of the .tar files.")
        found = (prefix + name for prefix, names in walk(self._folder) for name in names)
        yield from self.heads(sorted(name for name in found if is_shard(name)))

    def heads(self, names: Iterable[str]) -> Sequence[Stored]:
        """Return size and modification time of each shard; see `Store`."""
        names = list(names)
        problems = [problem for name in names if (problem := self._problem(name))]
        remedy = (
            "Mend or remove these links, make the files readable (chmod +r), and number only "
            "shards that are there"
        )
        raise_unreadable(f"shards in {self.root}", problems, remedy)
        return [self.head(name) for name in names]

    def head(self, name: str) -> Stored:
        """Return size and modification time of a shard."""
        with self._errors(name):
            status = self._path(name).stat()
        return Stored(name, status.st_size, f"{status.st_mtime_ns:x}")

    def read(self, name: str, start: int, end: int, *, etag: str = "") -> bytes:
        """Return a part of a shard; see `Store`."""
        self._check(name, etag)
        with self._errors(name), open_regular(self._path(name)) as file:
            data = os.pread(file.fileno(), end - start, start)
        if len(data) != end - start:
            raise StoreError(f"{quoted(name)} in {self.root} is shorter than {end:,} bytes.")
        return data

    def download(
        self,
        name: str,
        file: IO[bytes],
        *,
        size: int,
        etag: str = "",
        num_parallel: int = 4,
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> str:
        """Copy a shard; see `Store`."""
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            piece = self.read(name, start, min(start + PIECE, size), etag=etag)
            digest.update(piece)
            file.write(piece)
            on_bytes(len(piece))
        return digest.hexdigest()

    def _check(self, name: str, etag: str) -> None:
        if etag and self.head(name).etag != etag:
            raise StoreError(f"{quoted(name)} in {self.root} has changed. Index the shards again.")

    def _problem(self, name: str) -> str | None:
        """Return why a shard cannot be opened; None if it can."""
        path = self._folder / name
        is_there = os.path.exists(path)  # noqa: PTH110 (pathlib raises for some errors)
        if is_there:
            return None if os.access(path, os.R_OK) else f"{quoted(name)} may not be read"
        if path.is_symlink():
            return f"{quoted(name)} is a link to {quoted(path.readlink())}, which is not there"
        return f"{quoted(name)} is not there"

    def _path(self, name: str) -> Path:
        if path_inside(self.root, name) != name:
            raise StoreError(f"{quoted(name)} leads outside of {self.root}.")
        return self._folder / name

    def _errors(self, name: str) -> "_Errors":
        return _Errors(f"{quoted(name)} in {self.root}")


class _Errors:
    """A context in which an OSError becomes a StoreError."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StoreError(f"{self.subject} cannot be read ({reason}).") from error
