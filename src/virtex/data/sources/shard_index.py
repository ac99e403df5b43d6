"""The index of a tar shard: the offset, size and captions of each image."""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from virtex import files
from virtex.data.checks import IMAGE_SUFFIXES
from virtex.data.packed import Arrays, PackedLists, PackedStrings
from virtex.data.sidecars import read_sidecar
from virtex.errors import DataError

VERSION = "1"
TAR_ERRORS = (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError)
"""Errors that tarfile raises at corrupt headers, beside its own."""
END_MARK = bytes(tarfile.BLOCKSIZE)
"""The block of zeros that ends a tar file."""

Extents = dict[str, tuple[int, int]]
"""Offset and size of each file by its key, which is its name up to the first dot."""


class BrokenShardError(Exception):
    """A shard that is truncated, or not a tar file."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The images (N) of a shard in order."""

    keys: PackedStrings
    offsets: NDArray[np.int64]
    """Offsets into the shard in bytes, (N,)."""
    sizes: NDArray[np.int64]
    """Sizes in bytes, (N,)."""
    captions: PackedLists
    faults: PackedStrings
    """Fault of each image's captions; empty if there is none."""


def open_index(shard: Path, index_root: Path) -> ShardIndex:
    """Return the cached index of a shard if it is up to date, else build and cache it.

    Args:
        index_root: Folder of the cache if the shard's own folder is read-only.

    Raises:
        BrokenShardError: The shard is truncated, or not a tar file.
    """
    paths, stamp = index_paths(shard, index_root), stamp_of(shard)
    for path in paths:
        if (index := _load(path, stamp)) is not None:
            return index
    index = build_index(shard)
    any(_save(index, path, stamp) for path in paths)
    return index


def index_paths(shard: Path, index_root: Path) -> tuple[Path, Path]:
    """Return the possible paths of a shard's index, the preferred one first."""
    name = f"{shard.name}.safetensors"
    folder = hashlib.sha256(os.fsencode(shard.parent.resolve())).hexdigest()[:16]
    return shard.parent / ".virtex-index" / name, index_root / "webdataset" / folder / name


def stamp_of(shard: Path) -> dict[str, str]:
    """Return the state of a shard that its index must match."""
    status = shard.stat()
    return {
        "version": VERSION,
        "shard_size": str(status.st_size),
        "shard_mtime_ns": str(status.st_mtime_ns),
    }


def build_index(shard: Path) -> ShardIndex:
    """Build the index of a shard from its headers and captions; Raises: see `open_index`."""
    images, texts, metadata = _find_members(shard)
    with shard.open("rb") as file:
        sidecars = [
            read_sidecar(
                _read(file.fileno(), texts.get(key)),
                _read(file.fileno(), metadata.get(key)) if key not in texts else None,
            )
            for key in images
        ]
    return ShardIndex(
        keys=PackedStrings(images),
        offsets=np.asarray([offset for offset, _ in images.values()], np.int64),
        sizes=np.asarray([size for _, size in images.values()], np.int64),
        captions=PackedLists([sidecar.captions for sidecar in sidecars]),
        faults=PackedStrings(sidecar.fault for sidecar in sidecars),
    )


def _find_members(shard: Path) -> tuple[Extents, Extents, Extents]:
    """Return the images, .txt files and .json files of a shard."""
    images: Extents = {}
    others: dict[str, Extents] = {"txt": {}, "json": {}}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in _members(tar, shard.stat().st_size):
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key, extent = folder + slash + stem, (member.offset_data, member.size)
                if stem and f".{ending.lower()}" in IMAGE_SUFFIXES:
                    if key in images:
                        raise BrokenShardError(f"it holds two images {key}")
                    images[key] = extent
                elif stem and ending in others:
                    others[ending][key] = extent
    except TAR_ERRORS as error:
        raise BrokenShardError(str(error) or type(error).__name__) from error
    return images, others["txt"], others["json"]


def _members(tar: tarfile.TarFile, num_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Yield the files in a tar of `num_bytes`.

    Raises:
        BrokenShardError: A member exceeds the file, or the end mark is missing.
    """
    previous = -1
    for member in tar:
        # A corrupt size may send tarfile back to an earlier offset.
        is_whole = 0 <= member.size <= num_bytes - member.offset_data
        if not is_whole or tar.offset <= previous:
            raise BrokenShardError("a file in it reaches beyond its end")
        previous = tar.offset
        if member.isreg() and not member.issparse():
            yield member
    assert tar.fileobj is not None
    # tarfile takes a corrupt or truncated header for the end of the file.
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != END_MARK:
        raise BrokenShardError("its end is missing")


def _read(descriptor: int, extent: tuple[int, int] | None) -> bytes | None:
    return None if extent is None else os.pread(descriptor, extent[1], extent[0])


def _save(index: ShardIndex, path: Path, stamp: dict[str, str]) -> bool:
    """Write an index, and return whether that was possible."""
    arrays = _arrays_of(index)
    content = to_safetensors(arrays, {**stamp, "sha256": _sha256(arrays)})
    try:
        files.write(path, content, durable=False)  # a torn file fails its checksum
    except DataError:
        return False
    return True


def _load(path: Path, stamp: dict[str, str]) -> ShardIndex | None:
    """Return the index in a file; None if it is missing, damaged or outdated."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
    except (OSError, SafetensorError):
        return None
    return _index_of(arrays) if metadata == {**stamp, "sha256": _sha256(arrays)} else None


def _arrays_of(index: ShardIndex) -> Arrays:
    arrays = {"offsets": index.offsets, "sizes": index.sizes}
    packed: dict[str, PackedStrings | PackedLists] = {
        "keys": index.keys,
        "captions": index.captions,
        "faults": index.faults,
    }
    for part, strings in packed.items():
        arrays |= {f"{part}.{name}": array for name, array in strings.arrays().items()}
    return arrays


def _index_of(arrays: Arrays) -> ShardIndex:
    parts: dict[str, Arrays] = {}
    for name, array in arrays.items():
        part, _, inner = name.partition(".")
        parts.setdefault(part, {})[inner] = array
    return ShardIndex(
        keys=PackedStrings.from_arrays(parts["keys"]),
        offsets=arrays["offsets"],
        sizes=arrays["sizes"],
        captions=PackedLists.from_arrays(parts["captions"]),
        faults=PackedStrings.from_arrays(parts["faults"]),
    )


def _sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
