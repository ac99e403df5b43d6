"""Files on disk: reading, atomic writes and appends, locks and digests.

Users' files are opened by `open_regular`, since a named pipe could be waited for without end. This
package writes all files by `replacing`, `write` or `append`. A new file is written in a temporary
folder beside its target, whose lock this process holds, and then renamed. A temporary folder with a
free lock was left by a process that died, and is removed.
"""

import contextlib
import errno
import functools
import hashlib
import io
import logging
import math
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from virtex.errors import ConfigError, DataError, VirTexError

try:
    import fcntl
except ImportError:  # not Unix: there are no locks
    fcntl = None  # type: ignore[assignment]

TORCH_WRITER = "inline_container"
"""File that torch names in a RuntimeError of its zip writer."""
PREFIX, LOCK = ".virtex-", "lock"
LOCK_POLL = 0.2
"""Seconds between two tries to take a lock."""
NUM_PROBES = 50
"""Tries to write into a folder that other processes make and remove at the same time."""
GRACE = 3600.0
"""Seconds for which a temporary folder without a lock counts as in use."""
log = logging.getLogger("virtex")
READ_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY"))
IRREGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
"""Kinds of file that hold no data to read."""


def open_regular(path: Path | str) -> io.FileIO:
    """Open a file for unbuffered reading, and never wait for a named pipe, device or socket.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, READ_FLAGS)
    except ValueError as error:  # a null byte, or letters that no file name can have
        raise OSError(errno.EINVAL, "not a valid file name", str(path)) from error
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise OSError(errno.ENXIO, "a socket, not a file", str(path)) from error
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{IRREGULAR.get(kind, 'special')}, not a file", str(path))
    return io.FileIO(descriptor)


def read_regular(path: Path | str, *, limit: int | None = None) -> bytearray:
    """Return the content of a regular file; Raises: see `open_regular`.

    Args:
        limit: Size in bytes above which a file counts as unreadable.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"{size:,} bytes are more than {limit:,}", str(path))
        content = bytearray(size)
        filled, view = 0, memoryview(content)
        while filled < size and (count := file.readinto(view[filled:])):
            filled += count
        view.release()
        del content[filled:]
        content += file.readall() or b""  # the system's own files have size 0, and a file may grow
    return content


@contextlib.contextmanager
def replacing(
    path: Path, *, error: type[VirTexError] = DataError, durable: bool = True
) -> Iterator[Path]:
    """Yield a temporary path that becomes `path`, a file or a folder, if the block succeeds.

    An existing folder keeps its other files; those of the same names are replaced one by one. The
    umask determines the permissions.

    Args:
        path: The target, whose missing parent folders are created.
        error: The error to raise if the target cannot be written.
        durable: Wait until the content is on disk, so that a power failure cannot damage it.

    Raises:
        VirTexError: The target cannot be written; the class is `error`.
    """
    path = path.absolute()  # "." has no name
    with write_errors(path, error):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with _temporary_folder(path.parent) as folder:
            temporary = folder / path.name
            yield temporary
            _move(temporary, path, durable=durable)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder under `parent`, which is removed at the end; after a kill by the next.

    Raises:
        DataError: The folder cannot be written.
    """
    with write_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        with _temporary_folder(parent) as folder:
            yield folder


def write(
    path: Path, content: str | bytes, *, error: type[VirTexError] = DataError, durable: bool = True
) -> None:
    """Write a file atomically, text as UTF-8. Args and Raises: see `replacing`."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, error=error, durable=durable) as temporary:
        temporary.write_bytes(data)


def check_out(path: Path, *, is_file: bool) -> None:
    """Check that a command will be able to write its output, by a probe that is removed again.

    Args:
        is_file: Whether the output is a file; else it is a folder.

    Raises:
        ConfigError: A file or folder of this name cannot be written; says why.
    """
    folder = path.absolute().parent if is_file else path.absolute()
    with write_errors(path, ConfigError):
        if is_file and path.is_dir():
            raise ConfigError(f"{path} is a folder: give the name of a file to write.")
        for left in reversed(range(NUM_PROBES)):
            try:
                _probe(folder, path.name if is_file else "probe")
                break
            except (FileNotFoundError, FileExistsError):  # another process's probe removed it
                if not left:
                    raise


def _probe(folder: Path, name: str) -> None:
    """Write a file in a folder that need not exist, and remove what was made."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(folder) as inner:
            (inner / name).write_bytes(b"probe" * 100)
    finally:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()


@contextlib.contextmanager
def write_errors(path: Path, error: type[VirTexError] = DataError) -> Iterator[None]:
    """Raise `error` in place of an OSError, or of the RuntimeError that torch raises for one."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as cause:
        if isinstance(cause, ValueError) and "null byte" not in str(cause):
            raise
        root = cause if isinstance(cause, OSError) else cause.__context__ or cause
        is_torch = isinstance(cause, RuntimeError) and TORCH_WRITER in str(cause)
        if not isinstance(root, OSError | ValueError) and not is_torch:
            raise
        reason = root.strerror or root if isinstance(root, OSError) else root
        if isinstance(root, FileExistsError | NotADirectoryError):
            reason = f"{_blocker(Path(root.filename))} is no folder"
        raise error(
            f"cannot write {path}: {reason}. Free some space, correct the permissions, or choose "
            "another path; an earlier file is unchanged."
        ) from cause


def read_text(path: Path, *, most: int, error: type[VirTexError] = DataError) -> str:
    """Return the text of a regular file of at most `most` bytes.

    Raises:
        VirTexError: No such file, too large, no UTF-8, or it cannot be read; the class is `error`.
    """
    try:
        return read_regular(path, limit=most).decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"{path} is no text in UTF-8 (byte {cause.start})") from cause
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror or cause}") from cause


def _blocker(path: Path) -> Path:
    """Return the first file of a path that should be a folder."""
    parts = [*reversed(path.parents), path]
    return next((part for part in parts if os.path.lexists(part) and not part.is_dir()), path)


def append(file: io.FileIO, content: bytes) -> None:
    """Append to an unbuffered file opened for appending: all of the content or nothing.

    Raises:
        OSError: The content cannot be written; the file is unchanged.
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
def locked(path: Path, *, subject: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock until the block or this process ends, even by a kill.

    Args:
        path: The lock file, which is created if missing and never removed.
        subject: What the lock protects, for the message.
        patience: Seconds for which the lock of another process is waited for; may be infinite.

    Raises:
        ConfigError: Another process holds the lock; names its host and process id.
        DataError: The lock file cannot be written.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    with file:
        _take_or_raise(file, subject=subject, patience=patience)
        with write_errors(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        with _not_inherited(file):
            yield


def _take_or_raise(file: IO[bytes], *, subject: str, patience: float) -> None:
    deadline, has_said = time.monotonic() + patience, False
    while not take_lock(file):
        file.seek(0)
        holder = file.read(200).decode(errors="replace").strip() or "another process"
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"{subject} is in use by {holder}: wait until it ends, or choose another path."
            )
        if not has_said:
            has_said = True
            limit = f"up to {patience:g} s" if math.isfinite(patience) else "until it ends"
            log.info("%s is in use by %s: waiting %s", subject, holder, limit)
        time.sleep(LOCK_POLL)


def take_lock(file: IO[bytes], *, wait: bool = False) -> bool:
    """Lock a file until it is closed; return False if another process holds the lock.

    Without support for locks by the system and the file system, return True.
    """
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


_held: set[IO[bytes]] = set()


@contextlib.contextmanager
def _not_inherited(file: IO[bytes]) -> Iterator[None]:
    """Close the file in forked processes, which would hold its lock after this process ends."""
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
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in a locked temporary folder, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=".tmp", dir=parent))
    unlocked = folder / f".{LOCK}"
    try:
        with unlocked.open("ab") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    unlocked.rename(folder / LOCK)  # only a locked file has this name
            inner = folder / "new"
            inner.mkdir()
            with _not_inherited(file):
                yield inner
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders of processes that died; runs once per folder and process."""
    for temporary in folder.glob(f"{PREFIX}*.tmp"):
        with contextlib.suppress(OSError):
            if _is_abandoned(temporary):
                shutil.rmtree(temporary, ignore_errors=True)


def _is_abandoned(temporary: Path) -> bool:
    """Return True for a temporary folder that no process uses, else False or raise OSError."""
    lock = temporary / LOCK
    if fcntl is None or not lock.exists():
        return time.time() - temporary.stat().st_mtime > GRACE
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _move(temporary: Path, path: Path, *, durable: bool) -> None:
    """Rename a temporary file or folder to its target, once it is on disk."""
    mode = temporary.parent.stat().st_mode & 0o666  # permissions by the umask
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
    for folder in (path.parent, path) if is_folder else (path.parent,):
        if durable:
            _sync_folder(folder)


def _sync_folder(path: Path) -> None:
    """Make a rename durable: it is stored in the folder, not in the file."""
    if os.name != "nt":  # Windows cannot open folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
