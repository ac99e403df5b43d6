"""Locks on files, which end with the process that holds them.

Unlike those of `virtex.files` they may be shared, their files may be removed while they are held,
and a file system without locks is an error: two downloads would write the same file.
"""

import io
import os
from pathlib import Path

from virtex.errors import ConfigError
from virtex.files import write_errors

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None  # type: ignore[assignment]

Lock = io.FileIO
"""A file that is locked until it is closed or its process dies."""


def take_lock(path: Path, *, shared: bool = False, wait: bool = False) -> Lock | None:
    """Lock a file, which is created if missing; None if another process has locked it.

    Raises:
        ConfigError: The file cannot be written or locked.
    """
    if fcntl is None:
        raise ConfigError("a cache of shards needs file locks, which only Unix has.")
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        with write_errors(path, ConfigError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = io.FileIO(path, "ab")
        if not _flock(file, operation, path):
            file.close()
            return None
        if _is_at(path, file):
            return file
        file.close()  # it was removed meanwhile


def share_lock(lock: Lock) -> None:
    """Make an exclusive lock a shared one; in between another process may have had it."""
    fcntl.flock(lock, fcntl.LOCK_SH)


def is_locked(path: Path) -> bool:
    """Return whether a process has locked a file exclusively; one that is missing is not."""
    try:
        with io.FileIO(path, "rb") as file:
            return not _flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB, path)
    except FileNotFoundError:
        return False


def _flock(file: Lock, operation: int, path: Path) -> bool:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        file.close()
        raise ConfigError(
            f"{path.parent} cannot hold a cache of shards: its files cannot be locked "
            f"({error.strerror}). Choose a folder on a local disk by --data.cache_dir."
        ) from error
    return True


def _is_at(path: Path, file: Lock) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
