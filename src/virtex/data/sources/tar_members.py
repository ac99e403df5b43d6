"""The files in a tar by their offsets, behind links and in archives joined end to end."""

import errno
import io
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from virtex.files import open_regular

TAR_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError)
"""Errors that tarfile raises at corrupt headers, beside its own."""
CONTENT_ERRORS = (None, errno.EINVAL)
"""Numbers of the OSErrors that corrupt headers, or files that are not regular, lead to."""
END_MARK = bytes(tarfile.BLOCKSIZE)
"""The block of zeros that ends a tar file."""
PIECE = 2**20
MAX_LINKS = 40
"""Most links from one to the next, as in Linux."""
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of compressed files."""


class BrokenShardError(Exception):
    """A shard that is truncated, or not a tar file."""


class Extent(NamedTuple):
    """The part of a shard that holds a file, in bytes."""

    offset: int
    size: int


class Member(NamedTuple):
    """A file in a shard."""

    name: str
    extent: Extent


class _Link(NamedTuple):
    name: str
    target: str
    """The normalized name of the target."""


def find_members(shard: Path) -> tuple[list[Member], Counter[str]]:
    """Return the files in a shard in their order, and a count of what cannot be read, by reason.

    Raises:
        BrokenShardError: The shard is truncated, or not a tar file.
        OSError: It cannot be opened or read, which is no fault of its content.
    """
    found: list[Member | _Link] = []
    left_out: Counter[str] = Counter()
    try:
        with io.BufferedReader(open_regular(shard)) as file:
            _check_uncompressed(file)
            for member in _all_members(file, left_out):
                if member.issym() or member.islnk():
                    found.append(_Link(member.name, _target(member)))
                elif member.issparse():
                    left_out["sparse"] += 1
                elif member.isreg():
                    extent = Extent(member.offset_data, member.size)
                    found.append(Member(member.name, extent))
                elif not member.isdir():
                    left_out["pipe or device"] += 1
    except TAR_ERRORS as error:
        if isinstance(error, OSError) and error.errno not in CONTENT_ERRORS:
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BrokenShardError(reason or str(error) or type(error).__name__) from error
    return _without_links(found, left_out), left_out


def _check_uncompressed(file: IO[bytes]) -> None:
    start = file.read(8)
    for magic, kind in COMPRESSIONS.items():
        if start.startswith(magic):
            raise BrokenShardError(f"it is compressed with {kind}, which has no offsets: unpack it")


def _all_members(file: IO[bytes], left_out: Counter[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of all archives in a file."""
    num_bytes = os.fstat(file.fileno()).st_size
    start: int | None = 0
    while start is not None:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            yield from _members(tar, num_bytes)
            end = tar.offset
        start = _next_data(file, end)
        if start is not None and not _is_header(file, start):
            left_out["piece behind the end of the archive"] += 1
            start = None


def _members(tar: tarfile.TarFile, num_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive in a file of `num_bytes`.

    Raises:
        BrokenShardError: A member exceeds the file, or the end mark is missing.
    """
    previous = -1
    for member in tar:
        # A corrupt size may send tarfile back to an earlier offset; sparse files take less space.
        size = 0 if member.issparse() else member.size
        is_whole = 0 <= size <= num_bytes - member.offset_data and tar.offset <= num_bytes
        if not is_whole or tar.offset <= previous:
            raise BrokenShardError("a file in it reaches beyond its end")
        previous = tar.offset
        yield member
    assert tar.fileobj is not None
    # tarfile takes a corrupt or truncated header for the end of the file.
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != END_MARK:
        raise BrokenShardError("its end is missing")


def _next_data(file: IO[bytes], offset: int) -> int | None:
    """Return the offset of the first block from `offset` on that is not zero, if there is one."""
    while True:
        try:
            offset = _skip_hole(file.fileno(), offset)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ESTALE):
                raise
            return None  # there is only a hole
        piece = os.pread(file.fileno(), PIECE, offset)
        rest = piece.lstrip(b"\0")
        if rest:
            return offset + (len(piece) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        if not piece:
            return None
        offset += len(piece)


def _skip_hole(descriptor: int, offset: int) -> int:
    """Return the offset of the next block that is stored; an OSError if there is none."""
    if not hasattr(os, "SEEK_DATA"):
        return offset
    data = os.lseek(descriptor, offset, os.SEEK_DATA)
    return max(offset, data // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE)


def _is_header(file: IO[bytes], offset: int) -> bool:
    block = os.pread(file.fileno(), tarfile.BLOCKSIZE, offset)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (*TAR_ERRORS, IndexError):
        return False
    return True


def _target(member: tarfile.TarInfo) -> str:
    """Return the normalized name to which a link leads."""
    folder = posixpath.dirname(member.name) if member.issym() else ""
    return posixpath.normpath(posixpath.join(folder, member.linkname))


def _without_links(found: list[Member | _Link], left_out: Counter[str]) -> list[Member]:
    """Return the files with the extent of its target for each link; count those without one."""
    by_name = {posixpath.normpath(one.name): one for one in found}
    members = []
    for one in found:
        target: Member | _Link | None = one
        for _ in range(MAX_LINKS):
            if not isinstance(target, _Link):
                break
            target = by_name.get(target.target)
        if isinstance(target, Member):
            members.append(Member(one.name, target.extent))
        else:
            left_out["link to no file in the shard"] += 1
    return members
