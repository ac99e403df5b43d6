"""A list of the examples to keep: ids one a line, or DataComp's array of ids.

A text id is an example's key, its shard and key (`00000.tar/000000012`), or the "uid" in its .json
file. Ids are hashed to 16 bytes and lie sorted in a file that all processes map, so that a hundred
million of them need no memory of their own.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtex.data.shards.manifest_file import ARRAY_ERRORS
from virtex.data.shards.shard_facts import UID_BYTES
from virtex.data.subsets import id_lines
from virtex.errors import ConfigError

CHUNK = 4096
"""Ids that are hashed at a time."""
FORMATS = "a .txt or .txt.gz file of one id a line, or a .npy file of texts or of DataComp's pairs"


@dataclass(frozen=True)
class KeepList:
    """Ids, which `prepare` has written sorted to a file."""

    path: Path
    is_uids: bool
    """Whether they are DataComp's ids of 16 bytes, not hashes of texts."""
    source: Path
    """The list that was given."""

    @classmethod
    def prepare(cls, source: Path, path: Path) -> "KeepList":
        """Read the list in `source` and write it sorted to `path`.

        Raises:
            ConfigError: It is empty, unreadable or of another format.
        """
        try:
            pairs, is_uids = _read(source)
        except (*ARRAY_ERRORS, zlib.error) as error:
            raise ConfigError(f"keep {source} cannot be read ({error}): give {FORMATS}.") from error
        if not len(pairs):
            raise ConfigError(f"keep {source} holds no id: give {FORMATS}.")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        is_new = np.ones(len(pairs), np.bool_)
        is_new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        np.save(path, np.ascontiguousarray(pairs[is_new].T), allow_pickle=False)  # (2, K)
        return cls(path, is_uids, source)

    def __len__(self) -> int:
        return self._table.shape[1]

    def find(
        self, shard: str, keys: Iterable[str], uids: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which examples (N,) of a shard are in the list, and the places of their ids."""
        names = list(keys)
        if self.is_uids:
            found = [bytes.fromhex(key) if _is_uid(key) else b"\0" * UID_BYTES for key in names]
            ids = [_as_pairs(b"".join(found))]
            ids += [] if uids is None else [_as_pairs(uids.tobytes())]
        else:
            ids = [hashes_of(names), hashes_of(f"{shard}/{key}" for key in names)]
            ids += [] if uids is None else [hashes_of(uid.tobytes().hex() for uid in uids)]
        places = np.stack([self._places(pairs) for pairs in ids])  # (I, N)
        is_listed: NDArray[np.bool_] = np.any(places >= 0, axis=0)
        return is_listed, np.unique(places[places >= 0])

    def some_of(self, is_chosen: NDArray[np.bool_], *, number: int = 3) -> list[str]:
        """Return the first few ids, in the list's order, of those at some places (K,)."""
        return list(islice(self._names_of(is_chosen), number))

    def _names_of(self, is_chosen: NDArray[np.bool_]) -> Iterator[str]:
        if self.is_uids:
            first, second = self._table
            for place in np.flatnonzero(is_chosen).tolist():
                yield f"{int(first[place]):016x}{int(second[place]):016x}"
            return
        texts = _texts_of(self.source)
        while names := list(islice(texts, CHUNK)):
            places = self._places(hashes_of(names))
            chosen = is_chosen[places].tolist()
            yield from (name for name, is_one in zip(names, chosen, strict=True) if is_one)

    @cached_property
    def _table(self) -> NDArray[np.uint64]:
        table: NDArray[np.uint64] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return table

    def _places(self, pairs: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the place of each id (N, 2) in the sorted list; -1 where it is not there."""
        first, second = self._table
        at = np.searchsorted(first, pairs[:, 0])
        places = np.full(len(pairs), -1, np.int64)
        while True:  # beyond ids whose first halves are the same: hardly ever twice
            inside = np.minimum(at, len(first) - 1)
            same = (first[inside] == pairs[:, 0]) & (at < len(first))
            is_found = same & (second[inside] == pairs[:, 1])
            places[is_found] = at[is_found]
            if not (same & (places < 0)).any():
                return places
            at = at + 1


def hashes_of(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return the hashes of texts (N, 2)."""
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    return _as_pairs(b"".join(hashlib.blake2b(one, digest_size=16).digest() for one in encoded))


def _as_pairs(data: bytes) -> NDArray[np.uint64]:
    """Return ids of 16 bytes each as two numbers (N, 2), as DataComp does."""
    return np.frombuffer(data, ">u8").astype(np.uint64).reshape(-1, 2)


def _is_uid(text: str) -> bool:
    return len(text) == 32 and not set(text) - set("0123456789abcdefABCDEF")


def _read(source: Path) -> tuple[NDArray[np.uint64], bool]:
    """Return the ids of a file (K, 2), and whether they are DataComp's."""
    if source.name.lower().endswith(".npy"):
        return _of_array(source, np.load(source, mmap_mode="r", allow_pickle=False))
    if not source.name.lower().endswith((".txt", ".txt.gz")):
        raise ValueError("its name says no known format")
    return hashes_of(_texts_of(source)), False


def _texts_of(source: Path) -> Iterator[str]:
    """Yield the ids of a list of texts."""
    if not source.name.lower().endswith(".npy"):
        yield from id_lines(source)
        return
    for one in np.load(source, mmap_mode="r", allow_pickle=False):
        yield one.decode() if isinstance(one, bytes) else str(one)


def _of_array(source: Path, array: NDArray[Any]) -> tuple[NDArray[np.uint64], bool]:
    fields: Mapping[str, Any] = array.dtype.fields or {}
    if array.ndim == 1 and [each[0] for each in fields.values()] == [np.dtype("u8")] * 2:
        first, second = (array[name] for name in fields)
        return np.stack([first, second], axis=1), True
    if array.ndim == 2 and array.dtype == np.uint64 and array.shape[1] == 2:
        return np.asarray(array), True
    if array.ndim == 1 and array.dtype.kind in "US":
        return hashes_of(_texts_of(source)), False
    raise ValueError(f"an array of {array.dtype} and shape {array.shape}")
