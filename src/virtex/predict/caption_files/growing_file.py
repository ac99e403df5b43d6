"""A file that one process at a time appends to, and that outlives kills and full disks."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from virtex.engine.run import append_whole
from virtex.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # not Unix: two processes that write one file are not kept apart there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("virtex")


class GrowingFile:
    """A file that this process alone holds until it closes it, or ends, however it ends.

    Raises:
        ConfigError: Another process holds it.
        DataError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._file = _open_held(path)

    def num_bytes(self) -> int:
        """How many are in it."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, content: bytes) -> None:
        """Add to its end, all of it or nothing.

        Raises:
            DataError: The disk is full, or gone.
        """
        with writing(self.path):
            append_whole(self._file, content)

    def truncate(self, num_bytes: int) -> None:
        """Keep so many bytes."""
        with writing(self.path):
            self._file.truncate(num_bytes)

    def remove(self) -> None:
        """Delete it, before another process can hold it."""
        if fcntl is None:
            self.close()  # elsewhere an open file cannot be deleted
        self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let others hold it."""
        self._file.close()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell in words that a file cannot be written.

    Raises:
        DataError: Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. What was written so far is kept: "
            "make room and give the same command again."
        ) from error


def _open_held(path: Path) -> io.FileIO:
    while True:
        file = path.open("ab", buffering=0)
        _hold(file, path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # whoever held it before has deleted it


def _hold(file: io.FileIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ConfigError(
            f"another process is writing {path}: wait until it ends, or choose another file."
        ) from error
    except OSError as error:
        log.warning(
            "%s cannot be locked (%s): see that no other process writes it", path, error.strerror
        )
