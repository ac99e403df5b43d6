"""The manifest: which shards a data set has, how many examples each, and which of them are kept.

A manifest is a folder:

    manifest.json       a header and one shard a line; valid JSON as a whole
    kept.npy            one bit an example, each shard from a whole byte on; only if any is left out
    faults.jsonl        shard, position, key and reason of each example that cannot be used
    captions.jsonl.gz   a sample of captions, for vocabularies
    records/            where each example of a shard lies (see `records`)

A process holds some 150 bytes a shard, whatever the number of examples. What is read is not
trusted: sizes are bounded, and no name leads outside.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from virtex import files
from virtex.data.checks import path_inside, quoted
from virtex.data.packed import PackedStrings, starts_of
from virtex.data.shards.records import SUFFIX
from virtex.errors import DataError, listing

VERSION = 1
HEADER, KEPT, FAULTS, CAPTIONS = "manifest.json", "kept.npy", "faults.jsonl", "captions.jsonl.gz"
RECORDS = "records"
MAX_BYTES = 2**30
"""Largest manifest.json: some 7 million shards."""
MAX_SHARD_BYTES = 2**46
MAX_EXAMPLES = 2**31
"""Most examples of a shard."""
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https", "file")
"""Schemes of the URLs that shards may lie at."""
RECORDS_PLACE = re.compile(r"(\.\./[^/\0]{1,255}/)?records")
"""Folder of the records, in the manifest or in one beside it."""
SHA256 = re.compile("[0-9a-f]{64}")


class Shard(NamedTuple):
    """One shard of a manifest."""

    name: str
    """Path under the root."""
    size: int
    """Size in bytes."""
    etag: str
    """Version that the store tells; empty if it tells none."""
    sha256: str
    num_examples: int
    """Examples in the shard, whether kept or not."""
    num_kept: int
    """Examples without faults that are not left out otherwise."""


class LeftOut(NamedTuple):
    """A shard that is left out as a whole, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Manifest:
    """The shards (S) of a data set; make one by `of` or `read`."""

    root: str
    """URL of the shards, or their folder."""
    names: PackedStrings
    sizes: NDArray[np.int64]
    """Sizes in bytes, (S,)."""
    etags: PackedStrings
    digests: NDArray[np.uint8]
    """SHA-256 of each shard, (S, 32)."""
    num_examples: NDArray[np.int64]
    """Examples of each shard, whether kept or not, (S,)."""
    num_kept: NDArray[np.int64]
    """Examples of each shard that are kept, (S,)."""
    left_out: tuple[LeftOut, ...] = ()
    """Shards that are broken."""
    fault_counts: Mapping[str, int] = field(default_factory=dict)
    """Number of examples with a fault, by reason."""
    kept_bits: NDArray[np.uint8] | None = None
    """Bits of the kept examples in memory; None if they are in `folder`, or all are kept."""
    kept_sha256: str = ""
    """SHA-256 of these bits; empty if all examples are kept."""
    folder: Path | None = None
    """Folder that it was read from."""
    records_place: str = ""
    """Folder of the records relative to `folder`; empty if there are none."""

    @classmethod
    def of(
        cls,
        root: str | Path,
        shards: Iterable[Shard],
        *,
        kept: Sequence[NDArray[np.bool_] | None] | None = None,
        left_out: Iterable[LeftOut] = (),
        fault_counts: Mapping[str, int] | None = None,
        records_place: str = "",
    ) -> Self:
        """Return a manifest of plain values.

        Args:
            root: URL of the shards, or their folder.
            kept: Which examples of each shard are kept; None for a shard of which all are. It
                determines `num_kept` of the shards.
        """
        rows = list(shards)
        masks = list(kept or [None] * len(rows))
        counts = np.asarray([row.num_examples for row in rows], np.int64)
        num_kept = np.asarray([row.num_kept for row in rows], np.int64)
        for index, mask in enumerate(masks):
            if mask is not None:
                assert len(mask) == counts[index]
                num_kept[index] = np.count_nonzero(mask)
        bits = None if np.array_equal(counts, num_kept) else _packed(masks, counts)
        return cls(
            root=str(root),
            names=PackedStrings(row.name for row in rows),
            sizes=np.asarray([row.size for row in rows], np.int64),
            etags=PackedStrings(row.etag for row in rows),
            digests=_digests([row.sha256 for row in rows]),
            num_examples=counts,
            num_kept=num_kept,
            left_out=tuple(left_out),
            fault_counts=dict(fault_counts or {}),
            kept_bits=bits,
            kept_sha256="" if bits is None else hashlib.sha256(bits.tobytes()).hexdigest(),
            records_place=records_place,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the manifest in a folder; `path` may also be its manifest.json.

        Raises:
            DataError: It is missing or damaged.
        """
        folder = path.parent if path.name == HEADER else path
        return _Reader(folder).manifest(cls)

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory-mapped bits out: each process maps the file by itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_bits"}

    @cached_property
    def kept_starts(self) -> NDArray[np.int64]:
        """Number of kept examples before each shard, and of all, (S + 1,)."""
        return starts_of(self.num_kept.tolist())

    @property
    def num_all_kept(self) -> int:
        """Number of examples that are kept, of all shards."""
        return int(self.num_kept.sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, contents and kept examples, wherever the shards lie."""
        total = hashlib.sha256(f"{VERSION} {self.kept_sha256}\n".encode())
        rows = zip(self.names, self.digests, self.num_kept.tolist(), strict=True)
        for name, digest, num_kept in rows:
            total.update(f"{json.dumps(name)} {digest.tobytes().hex()} {num_kept}\n".encode())
        return total.hexdigest()

    def shard(self, index: int) -> Shard:
        """Return all about a shard."""
        return Shard(
            name=self.names[index],
            size=int(self.sizes[index]),
            etag=self.etags[index],
            sha256=self.digests[index].tobytes().hex(),
            num_examples=int(self.num_examples[index]),
            num_kept=int(self.num_kept[index]),
        )

    def positions(self, shard: int) -> NDArray[np.int64] | None:
        """Return the positions of the kept examples of a shard, ascending; None for all of them.

        Raises:
            DataError: kept.npy is damaged.
        """
        count, num_kept = int(self.num_examples[shard]), int(self.num_kept[shard])
        if num_kept == count:
            return None
        start = int(self._byte_starts[shard])
        bits = np.unpackbits(self._bits[start : start + (count + 7) // 8], count=count)
        positions = np.flatnonzero(bits)
        if len(positions) != num_kept:
            raise DataError(f"{self.folder}/{KEPT} does not fit {HEADER}. Index the shards again.")
        return positions

    def records_path(self, shard: int) -> Path | None:
        """Return the file of a shard's records; None if the manifest has none."""
        if self.folder is None or not self.records_place:
            return None
        return self.folder / self.records_place / f"{self.names[shard]}{SUFFIX}"

    def check_faults(self, limit: float) -> None:
        """Check that at most a fraction of the examples has a fault.

        A broken shard counts with the mean number of examples of the others.

        Raises:
            DataError: More have; names the reasons by count.
        """
        mean = float(self.num_examples.mean()) if len(self) else 1.0
        num_faults = sum(self.fault_counts.values()) + mean * len(self.left_out)
        total = int(self.num_examples.sum()) + mean * len(self.left_out)
        if num_faults <= limit * total:
            return
        counts = sorted(self.fault_counts.items(), key=lambda item: (-item[1], item[0]))
        reasons = [f"{count:,} {reason}" for reason, count in counts]
        if self.left_out:
            names = listing(quoted(one.name) for one in self.left_out)
            reasons.append(f"{len(self.left_out):,} broken shards ({names})")
        raise DataError(
            f"{num_faults / max(total, 1):.1%} of the examples in {self.root} cannot be used, more "
            f"than the limit of {limit:.1%}: {listing(reasons, limit=20)}. Mend the shards, or "
            "raise data.fault_limit; faults.jsonl in the manifest lists them."
        )

    def write(self, folder: Path) -> None:
        """Write manifest.json, the last, and kept.npy; the root is relative if it holds `folder`.

        Raises:
            DataError: The folder cannot be written.
        """
        if self.kept_sha256:
            with files.replacing(folder / KEPT) as temporary, temporary.open("wb") as file:
                np.save(file, self._bits, allow_pickle=False)
        files.write(folder / HEADER, self._text(_root_from(folder, self.root)))
        if not self.kept_sha256:
            with contextlib.suppress(OSError):
                (folder / KEPT).unlink()

    def _text(self, root: str) -> str:
        header = {
            "virtex_manifest": VERSION,
            "root": root,
            "num_shards": len(self),
            "num_examples": int(self.num_examples.sum()),
            "num_kept": self.num_all_kept,
            "kept_sha256": self.kept_sha256,
            "records": self.records_place,
            "digest": self.digest,
            "faults": dict(sorted(self.fault_counts.items())),
            "left_out": [list(one) for one in self.left_out],
            "columns": list(Shard._fields),
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}," for key, value in header.items()]
        rows = [json.dumps(list(self.shard(index))) for index in range(len(self))]
        return "\n".join(["{", *lines, '"shards": [', ",\n".join(rows), "]", "}", ""])

    @cached_property
    def _byte_starts(self) -> NDArray[np.int64]:
        return starts_of(((self.num_examples + 7) // 8).tolist())

    @cached_property
    def _bits(self) -> NDArray[np.uint8]:
        if self.kept_bits is not None:
            return self.kept_bits
        path = self.folder / KEPT if self.folder is not None else Path(KEPT)
        try:
            files.open_regular(path).close()
            bits = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}). Index the shards again.") from error
        if bits.dtype != np.uint8 or bits.shape != (self._byte_starts[-1],):
            raise DataError(f"{path} does not fit {HEADER}. Index the shards again.")
        return bits


def has_manifest(path: Path) -> bool:
    """Return whether a path is a manifest: a folder that holds manifest.json, or that file."""
    return (path.parent / HEADER if path.name == HEADER else path / HEADER).is_file()


def _packed(
    masks: Sequence[NDArray[np.bool_] | None], counts: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return one bit an example, each shard from a whole byte on."""
    pieces = [
        np.packbits(np.ones(count, np.bool_) if mask is None else mask)
        for mask, count in zip(masks, counts.tolist(), strict=True)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint8)


def _digests(sha256s: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex("".join(sha256s)), np.uint8).reshape(len(sha256s), 32)


def is_url(root: str) -> bool:
    """Return whether a root is a URL, not a folder."""
    return "://" in root


def _root_from(folder: Path, root: str) -> str:
    """Return the root as a manifest in a folder states it: relative if the root holds it."""
    if is_url(root):
        return root
    shards, own = Path(root).absolute(), folder.absolute()
    relative = os.path.relpath(shards, own)
    return relative if own == shards or shards in own.parents else str(shards)


class _Reader:
    """A manifest's folder, as it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.path = folder / HEADER

    def manifest(self, cls: type["Manifest"]) -> Any:
        """Return the manifest, or raise a DataError."""
        try:
            document = json.loads(files.read_text(self.path, most=MAX_BYTES))
        except (ValueError, RecursionError) as error:
            raise self.damaged("it is not valid JSON") from error
        if not isinstance(document, dict) or document.get("virtex_manifest") != VERSION:
            raise self.damaged(f"it is no manifest of version {VERSION}")
        try:
            return self._checked(cls, document)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self.damaged(f"{type(error).__name__}: {quoted(error)}") from error

    def damaged(self, reason: str) -> DataError:
        """Return the error that says what is wrong."""
        return DataError(f"{self.path} cannot be used: {reason}. Write it again by virtex index.")

    def _checked(self, cls: type["Manifest"], document: dict[str, Any]) -> Any:
        rows = document["shards"]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(Shard._fields)
        if document["columns"] != list(Shard._fields) or len(columns) != len(Shard._fields):
            self._refuse("the columns of its shards are unknown")
        names, sizes, etags, sha256s, num_examples, num_kept = columns
        self._check_texts(names, etags, sha256s)
        place, kept_sha256 = document["records"], document["kept_sha256"]
        if place and (not RECORDS_PLACE.fullmatch(place) or place.startswith("../../")):
            self._refuse(f"records in {quoted(place)}")
        examples = _numbers(num_examples, MAX_EXAMPLES)
        kept = _numbers(num_kept, MAX_EXAMPLES)
        if (kept > examples).any() or bool((kept < examples).any()) != bool(kept_sha256):
            self._refuse("the number of kept examples is wrong")
        return cls(
            root=self._root(document["root"]),
            names=PackedStrings(names),
            sizes=_numbers(sizes, MAX_SHARD_BYTES),
            etags=PackedStrings(etags),
            digests=_digests(sha256s),
            num_examples=examples,
            num_kept=kept,
            left_out=tuple(LeftOut(str(name), str(why)) for name, why in document["left_out"]),
            fault_counts={str(why): int(count) for why, count in document["faults"].items()},
            kept_sha256=str(kept_sha256),
            folder=self.folder,
            records_place=place,
        )

    def _check_texts(self, names: Iterable[Any], etags: Iterable[Any], sha256s: Any) -> None:
        names = list(names)
        if outside := [name for name in names if path_inside("/root", name) != name]:
            self._refuse(f"shards outside its root: {listing(quoted(one) for one in outside)}")
        if len(set(names)) != len(names):
            self._refuse("a shard is listed twice")
        if not all(isinstance(etag, str) and len(etag) < 1000 for etag in etags):
            self._refuse("an ETag is no short text")
        if not all(SHA256.fullmatch(sha256) for sha256 in sha256s):
            self._refuse("a sha256 is not 64 hexadecimal digits")

    def _root(self, root: str) -> str:
        if is_url(root):
            if root.partition("://")[0].lower() not in SCHEMES:
                self._refuse(f"a root of unknown kind, {quoted(root)}")
            return root
        if not root or "\0" in root:
            self._refuse("no root")
        return os.path.normpath(self.folder / root)

    def _refuse(self, reason: str) -> NoReturn:
        raise self.damaged(reason)


def _numbers(values: Iterable[Any], most: int) -> NDArray[np.int64]:
    values = list(values)
    if not all(type(value) is int and 0 <= value <= most for value in values):
        raise ValueError(f"a number that is not from 0 to {most:,}")
    return np.asarray(values, np.int64)
