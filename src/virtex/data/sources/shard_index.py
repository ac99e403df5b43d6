"""The index of a tar shard: the offset, size and captions of each image."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from virtex import files
from virtex.data.packed import Arrays, PackedLists, PackedStrings
from virtex.data.sidecars import (
    MAX_BYTES,
    NO_KEYS,
    UNREADABLE,
    Sidecar,
    key_counts,
    keys_identity,
    read_sidecar,
)
from virtex.data.sources.tar_members import BrokenShardError, Extent, find_members
from virtex.data.sources.tar_samples import TarSample, find_samples
from virtex.errors import DataError
from virtex.files import open_regular

VERSION = "4"


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
    passed_over: Counter[str]
    """Number of files that are not used, by suffix or reason."""
    key_counts: NDArray[np.int32]
    """Number of captions of each image under each of K caption keys, (N, K)."""


def open_index(
    shard: Path, index_root: Path | None, keys: Mapping[str, float] = NO_KEYS
) -> ShardIndex:
    """Return the cached index of a shard if it is up to date, else build and cache it.

    Args:
        index_root: Folder of the cache if the shard's own folder is read-only; None for no cache.
        keys: Keys of the captions with their weights; see `read_sidecar`.

    Raises:
        BrokenShardError: The shard is truncated, cannot be read, or is not a tar file.
    """
    try:
        paths, stamp = index_paths(shard, index_root, keys), stamp_of(shard, keys)
        for path in paths:
            if (index := _load(path, stamp)) is not None:
                return index
        index = build_index(shard, keys)
    except OSError as error:
        raise BrokenShardError(error.strerror or str(error)) from error
    any(_save(index, path, stamp) for path in paths)
    return index


def index_paths(
    shard: Path, index_root: Path | None, keys: Mapping[str, float] = NO_KEYS
) -> list[Path]:
    """Return the possible paths of a shard's index, the preferred one first."""
    digest = hashlib.sha256(json.dumps(dict(keys)).encode()).hexdigest()[:8]
    name = f"{shard.name}.{digest}.safetensors" if keys else f"{shard.name}.safetensors"
    folder = hashlib.sha256(os.fsencode(shard.parent.resolve())).hexdigest()[:16]
    beside = shard.parent / ".virtex-index" / name
    return [beside] if index_root is None else [beside, index_root / "webdataset" / folder / name]


def stamp_of(shard: Path, keys: Mapping[str, float] = NO_KEYS) -> dict[str, str]:
    """Return the state of a shard that its index must match."""
    status = shard.stat()
    return {
        "version": VERSION,
        "shard_size": str(status.st_size),
        "shard_mtime_ns": str(status.st_mtime_ns),
        **keys_identity(keys),
    }


def build_index(shard: Path, keys: Mapping[str, float] = NO_KEYS) -> ShardIndex:
    """Build the index of a shard from its headers and captions.

    Raises:
        BrokenShardError: The shard is truncated, or not a tar file.
        OSError: It cannot be opened or read.
    """
    members, passed_over = find_members(shard)
    samples, others = find_samples(members)
    with open_regular(shard) as file:
        sidecars = [_read_captions(file.fileno(), sample, keys) for sample in samples]
    return ShardIndex(
        keys=PackedStrings(sample.key for sample in samples),
        offsets=np.asarray([sample.image.offset for sample in samples], np.int64),
        sizes=np.asarray([sample.image.size for sample in samples], np.int64),
        captions=PackedLists([sidecar.captions for sidecar in sidecars]),
        faults=PackedStrings(sidecar.fault for sidecar in sidecars),
        passed_over=passed_over + others,
        key_counts=key_counts(sidecars, keys),
    )


def _read_captions(descriptor: int, sample: TarSample, keys: Mapping[str, float]) -> Sidecar:
    try:
        text = _read(descriptor, sample.text)
        is_enough = text is not None and not keys
        metadata = None if is_enough else _read(descriptor, sample.metadata)
        return read_sidecar(text, metadata, keys)
    except OSError as error:
        if error.errno is not None:  # not of its size
            raise
        return Sidecar((), UNREADABLE)


def _read(descriptor: int, extent: Extent | None) -> bytes | None:
    if extent is None:
        return None
    if extent.size > MAX_BYTES:
        raise OSError("too large")
    return os.pread(descriptor, extent.size, extent.offset)


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
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
    except (OSError, SafetensorError):
        return None
    if metadata != {**stamp, "sha256": _sha256(arrays)}:
        return None
    index = _index_of(arrays)
    return index if _is_possible(index, int(stamp["shard_size"])) else None


def _is_possible(index: ShardIndex, shard_size: int) -> bool:
    """Whether all parts of an index have the same length, and all images are in the shard."""
    parts = (index.sizes, index.keys, index.captions, index.faults, index.key_counts)
    if any(len(part) != len(index.offsets) for part in parts):
        return False
    ends = index.offsets + index.sizes
    return bool(np.all((index.offsets >= 0) & (index.sizes >= 0) & (ends <= shard_size)))


def _arrays_of(index: ShardIndex) -> Arrays:
    arrays: Arrays = {"offsets": index.offsets, "sizes": index.sizes}
    arrays["key_counts"] = index.key_counts
    packed: dict[str, PackedStrings | PackedLists] = {
        "keys": index.keys,
        "captions": index.captions,
        "faults": index.faults,
        "passed_over": PackedStrings(index.passed_over.elements()),
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
        passed_over=Counter(PackedStrings.from_arrays(parts["passed_over"])),
        key_counts=arrays["key_counts"],
    )


def _sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
