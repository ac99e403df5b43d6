"""What a store of shards is, wherever the shards lie."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from virtex.errors import DataError, LostProcessError, raise_all

SHARD_SUFFIX = ".tar"
MOST_NAMED = 20
"""Most shards that one message names."""
MOST_MISSING = 1000
"""Missing shards after which no others are looked for."""
PIECE = 2**23
"""Bytes of one ranged read."""


class StoreError(DataError):
    """A store, or an object in it, that cannot be read; names both, but no credential."""

    may_pass = False
    """Whether another try may help, as after a failure of the network."""


class MissingError(StoreError):
    """An object that is not in its store."""


class StoreAwayError(StoreError):
    """A store that cannot be reached for now, which is no mistake of the user."""

    may_pass = True
    exit_code = LostProcessError.exit_code


class Stored(NamedTuple):
    """A shard in a store."""

    name: str
    """Path under the root of the store."""
    size: int
    etag: str
    """What changes whenever the content does: the store's ETag, or a file's modification time."""

    @property
    def stamp(self) -> str:
        """What tells one version of the shard from another."""
        return f"{self.size} {self.etag}"


@dataclass(frozen=True)
class Patience:
    """How long a failing store is asked again."""

    num_tries: int = 8
    """Most tries of one read."""
    seconds: float = 300.0
    """Seconds after which a read is not tried again."""
    first_wait: float = 0.2
    """Seconds before the second try; each further wait is twice as long, up to `longest_wait`."""
    longest_wait: float = 20.0
    request_seconds: float = 60.0
    """Seconds after which one request counts as failed."""
    connect_seconds: float = 10.0


class Store(Protocol):
    """Shards by their names."""

    root: str
    """URL or absolute folder."""
    folder: Path | None
    """The folder, if the shards are files of this machine."""

    def list(self) -> Iterator[Stored]:
        """Yield all *.tar at any depth, in the order of their names."""

    def head(self, name: str) -> Stored:
        """Return the size and ETag of a shard."""

    def heads(self, names: Iterable[str]) -> Sequence[Stored]:
        """Return the size and ETag of each shard.

        Raises:
            StoreError: Some are missing; names them together. Or the store cannot be read.
        """

    def read(self, name: str, start: int, end: int, *, etag: str = "") -> bytes:
        """Return the bytes from `start` to before `end`, all of them; see `download`."""

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
        """Write a whole shard to a file, and return its SHA-256.

        Args:
            size: The size of the shard.
            etag: The version to read; a StoreError says that it has changed. Empty: any.
            num_parallel: Ranges of `PIECE` bytes that are read, and held in memory, at once.
            on_bytes: Called with the number of each piece's bytes.

        Raises:
            StoreError: The shard cannot be read, or has changed.
        """


def raise_unreadable(subject: str, problems: Sequence[str], remedy: str) -> None:
    """Raise a StoreError that names the first of many shards; do nothing if there is none.

    Args:
        subject: What shards they are.
        problems: What is wrong with each.
        remedy: What to do.
    """
    shown, more = list(problems[:MOST_NAMED]), len(problems) - MOST_NAMED
    shown += [f"and {more:,} more"] * (more > 0)
    raise_all(StoreError, f"{len(problems):,} {subject} cannot be read. {remedy}", shown)


def is_shard(name: str) -> bool:
    """Return whether a name is that of a shard; hidden files and folders are none."""
    hidden = name.startswith(".") or "/." in name
    return name.lower().endswith(SHARD_SUFFIX) and not hidden
