"""The index of a tar shard: where each image lies in it, and its captions."""

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
"""What tarfile raises at headers that lie, beside its own errors."""
END_MARK = bytes(tarfile.BLOCKSIZE)
"""A tar file ends with blocks of zeros."""

Places = dict[str, tuple[int, int]]
"""Offset and size of a file in the shard, by its key: its name up to the first dot."""


class BrokenShardError(Exception):
    """A shard that is cut short, or no tar file."""


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The images (N) of a shard, in its order."""

    keys: PackedStrings
    offsets: NDArray[np.int64]
    """(N,) bytes into the shard."""
    sizes: NDArray[np.int64]
    """(N,) bytes."""
    captions: PackedLists
    faults: PackedStrings
    """What is wrong with the captions of each image; empty where nothing is."""


def open_index(shard: Path, index_root: Path) -> ShardIndex:
    """The index of a shard: the one kept on disk if it still fits, else a new one, then kept.

    Args:
        index_root: Where an index is kept if the shard's own folder is read-only.

    Raises:
        BrokenShardError: The shard is cut short, or no tar file.
    """
    places = index_paths(shard, index_root)
    stamp = stamp_of(shard)
    for path in places:
        if (index := _load(path, stamp)) is not None:
            return index
    index = build_index(shard)
    any(_save(index, path, stamp) for path in places)
    return index


def index_paths(shard: Path, index_root: Path) -> tuple[Path, Path]:
    """Where the index of a shard may lie, first choice first."""
    name = f"{shard.name}.safetensors"
    folder = hashlib.sha256(os.fsencode(shard.parent.resolve())).hexdigest()[:16]
    return shard.parent / ".virtex-index" / name, index_root / "webdataset" / folder / name


def stamp_of(shard: Path) -> dict[str, str]:
    """What must be the same for an index to fit a shard."""
    status = shard.stat()
    return {
        "version": VERSION,
        "shard_size": str(status.st_size),
        "shard_mtime_ns": str(status.st_mtime_ns),
    }


def build_index(shard: Path) -> ShardIndex:
    """The index of a shard, made by reading its headers and captions.

    Raises:
        BrokenShardError: The shard is cut short, or no tar file.
    """
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


def _find_members(shard: Path) -> tuple[Places, Places, Places]:
    """Images, .txt files and .json files of a shard."""
    images: Places = {}
    others: dict[str, Places] = {"txt": {}, "json": {}}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in _members(tar, shard.stat().st_size):
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key, place = folder + slash + stem, (member.offset_data, member.size)
                if stem and f".{ending.lower()}" in IMAGE_SUFFIXES:
                    if key in images:
                        raise BrokenShardError(f"it holds two images {key}")
                    images[key] = place
                elif stem and ending in others:
                    others[ending][key] = place
    except TAR_ERRORS as error:
        raise BrokenShardError(str(error) or type(error).__name__) from error
    return images, others["txt"], others["json"]


def _members(tar: tarfile.TarFile, num_bytes: int) -> Iterator[tarfile.TarInfo]:
    """The files in a tar of `num_bytes`, to its very end.

    Raises:
        BrokenShardError: A member reaches beyond the end, or the end mark is missing.
    """
    place = -1
    for member in tar:
        # A header may lie about its size, and send tarfile back to where it has been.
        is_whole = 0 <= member.size <= num_bytes - member.offset_data
        if not is_whole or tar.offset <= place:
            raise BrokenShardError("a file in it reaches beyond its end")
        place = tar.offset
        if member.isreg() and not member.issparse():
            yield member
    assert tar.fileobj is not None
    # tarfile takes a header that is broken or cut for the end of the file.
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != END_MARK:
        raise BrokenShardError("its end is missing")


def _read(descriptor: int, place: tuple[int, int] | None) -> bytes | None:
    return None if place is None else os.pread(descriptor, place[1], place[0])


def _save(index: ShardIndex, path: Path, stamp: dict[str, str]) -> bool:
    """Write an index; False where that is not possible."""
    arrays = _arrays_of(index)
    content = to_safetensors(arrays, {**stamp, "sha256": _sha256(arrays)})
    try:
        files.write(path, content, durable=False)  # a torn one fails its checksum, and is built
    except DataError:
        return False
    return True


def _load(path: Path, stamp: dict[str, str]) -> ShardIndex | None:
    """The index that a file holds; None where it is missing, damaged or of another shard."""
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
