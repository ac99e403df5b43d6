"""Files on disk: atomic writes, appends that are whole or absent, locks, digests.

Every file that this package writes goes through `replacing`, `write` or `append`. What is written
lies first in a new folder beside its target, which this process alone holds a lock on; a folder of
that kind whose lock is free was left by a process that died, and is removed.
"""

import contextlib
import functools
import hashlib
import io
import os
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from virtex.errors import ConfigError, DataError, VirTexError

try:
    import fcntl
except ImportError:  # not Unix: processes that write one file are not kept apart there
    fcntl = None  # type: ignore[assignment]

PREFIX, LOCK = ".virtex-", "lock"
NEWBORN = 3600.0
"""Seconds in which a temporary folder without its lock counts as one that is just being made."""


@contextlib.contextmanager
def replacing(
    path: Path, *, error: type[VirTexError] = DataError, durable: bool = True
) -> Iterator[Path]:
    """Yield a temporary path that becomes `path`, a file or a folder, when the block ends well.

    A folder that exists already keeps its other files; those of the same names are replaced one by
    one. The umask decides who may read the result.

    Args:
        path: The target. Missing parent folders are made.
        error: The error to raise where the target cannot be written.
        durable: Wait until the disk has it, so that a power cut cannot tear it.

    Raises:
        VirTexError: `error`, where the disk is full or the folder cannot be written.
    """
    with telling(path, error):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with _temporary_folder(path.parent) as folder:
            temporary = folder / path.name
            yield temporary
            _put(temporary, path, durable=durable)


def write(
    path: Path, content: str | bytes, *, error: type[VirTexError] = DataError, durable: bool = True
) -> None:
    """Write a file, all of it or nothing; text as UTF-8. Args and Raises as of `replacing`."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, error=error, durable=durable) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def telling(path: Path, error: type[VirTexError] = DataError) -> Iterator[None]:
    """Turn a failure to write `path` into an error that says what to do.

    Raises:
        VirTexError: `error`, instead of OSError, or of the RuntimeError that torch makes of it.
    """
    try:
        yield
    except (OSError, RuntimeError) as cause:
        hidden = cause.__context__
        root = hidden if isinstance(hidden, OSError) and isinstance(cause, RuntimeError) else cause
        reason = root.strerror or root if isinstance(root, OSError) else root
        if isinstance(root, FileExistsError | NotADirectoryError):
            reason = f"{root.filename} is no folder"
        raise error(
            f"cannot write {path}: {reason}. Free some space or mend its permissions, or choose "
            "another place; what was there before is untouched."
        ) from cause


def append(file: io.FileIO, content: bytes) -> None:
    """Add to the end of an unbuffered file that is open for appending: all of it or nothing.

    Raises:
        OSError: The disk is full, or gone; the file is as it was.
    """
    size = file.seek(0, os.SEEK_END)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(size)
        raise


@contextlib.contextmanager
def locked(path: Path, *, subject: str) -> Iterator[None]:
    """Hold the lock file `path` until the block, or this process, ends, however it ends.

    Args:
        path: The lock file, which is made where it is missing, and stays.
        subject: What the lock protects, for the message.

    Raises:
        ConfigError: Another process holds it; names that one's host and process id.
        DataError: The lock file cannot be written.
    """
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    with file:
        if not take_lock(file):
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "another process"
            raise ConfigError(
                f"{subject} is in use by {holder}: wait until it ends, or choose another place."
            )
        with telling(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        with _not_inherited(file):
            yield


def take_lock(file: IO[bytes], *, wait: bool = False) -> bool:
    """Take an exclusive lock, which ends when the file is closed; False where another has it.

    Where the system or the file system has no locks, nothing is taken and the answer is True.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


_held: set[IO[bytes]] = set()


@contextlib.contextmanager
def _not_inherited(file: IO[bytes]) -> Iterator[None]:
    """Keep a lock from the processes that are forked: each would hold it beyond its owner's end."""
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)


def _close_held() -> None:
    while _held:
        _held.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def zip_damage(file: Path | IO[bytes]) -> str | None:
    """Say what is wrong with a zip file's structure or checksums; None where it is whole."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError) as error:
        return str(error) or type(error).__name__
    return None if damaged is None else f"wrong checksum in {damaged}"


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a folder of a new name, lock it, and remove it in the end."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=".tmp", dir=parent))
    try:
        with _own_lock(folder):
            inner = folder / "new"
            inner.mkdir()
            yield inner
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _own_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a temporary folder; its file has its name only once it is locked."""
    if fcntl is None:
        yield
        return
    unlocked = folder / f".{LOCK}"
    with unlocked.open("ab") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
            unlocked.rename(folder / LOCK)
        yield


@functools.cache
def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that died while writing left in a folder; once for each process."""
    for temporary in folder.glob(f"{PREFIX}*.tmp"):
        with contextlib.suppress(OSError):
            if _is_abandoned(temporary):
                shutil.rmtree(temporary, ignore_errors=True)


def _is_abandoned(temporary: Path) -> bool:
    """Whether nobody holds the lock of a temporary folder.

    Raises:
        OSError: The file system has no locks, so that nobody can tell.
    """
    lock = temporary / LOCK
    if fcntl is None or not lock.exists():
        return time.time() - temporary.stat().st_mtime > NEWBORN
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _put(temporary: Path, path: Path, *, durable: bool) -> None:
    """Give what was written its name, once it is on the disk."""
    mode = temporary.parent.stat().st_mode & 0o666  # as the umask says
    is_folder = temporary.is_dir()
    files = [file for file in temporary.rglob("*") if file.is_file()] if is_folder else [temporary]
    for file in files:
        file.chmod(mode)
        if durable:
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
    if is_folder and path.is_dir():
        for file in temporary.iterdir():
            file.replace(path / file.name)
    else:
        temporary.replace(path)
    if durable:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make a rename durable: it lives in the folder, not in the file."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
