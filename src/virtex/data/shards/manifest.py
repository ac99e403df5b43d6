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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from virtex import files
from virtex.data.checks import quoted
from virtex.data.packed import PackedStrings, starts_of
from virtex.data.shards.manifest_file import (
    ARRAY_ERRORS,
    CAPTIONS,
    FAULTS,
    HEADER,
    KEPT,
    RECORDS,
    VERSION,
    LeftOut,
    Reading,
    Shard,
    digests_of,
    has_manifest,
    is_url,
    read_fields,
    root_from,
)
from virtex.data.shards.records import SUFFIX
from virtex.errors import DataError, listing

__all__ = [
    "CAPTIONS",
    "FAULTS",
    "HEADER",
    "KEPT",
    "RECORDS",
    "LeftOut",
    "Manifest",
    "Reading",
    "Shard",
    "has_manifest",
    "is_url",
]


class SourceShard(NamedTuple):
    """A shard by the index of its source, 0 unless several are mixed, and its own index there."""

    source: int
    shard: int


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
    reading: Reading | None = None
    """What the shards were read for; None if that is not known."""
    pattern: str | None = None
    """Names of the numbered shards that were indexed, as train-{000..331}.tar; empty for all below
    the root, None if that is not known."""

    @classmethod
    def of(
        cls,
        root: str | Path,
        shards: Iterable[Shard],
        *,
        kept: Iterable[NDArray[np.bool_] | None] | None = None,
        left_out: Iterable[LeftOut] = (),
        fault_counts: Mapping[str, int] | None = None,
        records_place: str = "",
        reading: Reading | None = None,
        pattern: str | None = None,
    ) -> Self:
        """Return a manifest of plain values.

        Args:
            root: URL of the shards, or their folder.
            kept: Which examples of each shard are kept; None for a shard of which all are. It
                determines `num_kept` of the shards.
        """
        rows = list(shards)
        counts = np.asarray([row.num_examples for row in rows], np.int64)
        num_kept = np.asarray([row.num_kept for row in rows], np.int64)
        pieces = []
        for index, mask in enumerate(kept or ()):
            if mask is not None:
                assert len(mask) == counts[index]
                num_kept[index] = np.count_nonzero(mask)
            pieces.append(np.packbits(np.ones(counts[index], np.bool_) if mask is None else mask))
        bits = None if np.array_equal(counts, num_kept) else np.concatenate(pieces)
        return cls(
            root=str(root),
            names=PackedStrings(row.name for row in rows),
            sizes=np.asarray([row.size for row in rows], np.int64),
            etags=PackedStrings(row.etag for row in rows),
            digests=digests_of([row.sha256 for row in rows]),
            num_examples=counts,
            num_kept=num_kept,
            left_out=tuple(left_out),
            fault_counts=dict(fault_counts or {}),
            kept_bits=bits,
            kept_sha256="" if bits is None else hashlib.sha256(bits.tobytes()).hexdigest(),
            records_place=records_place,
            reading=reading,
            pattern=pattern,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the manifest in a folder; `path` may also be its manifest.json.

        Raises:
            DataError: It is missing or damaged.
        """
        folder = path.parent if path.name == HEADER else path
        return cls(**read_fields(folder.absolute()))

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

    @property
    def absent_records(self) -> Path | None:
        """Folder of the records if it should be there and is not; else None."""
        if self.folder is None or not self.records_place:
            return None
        place = Path(os.path.normpath(self.folder / self.records_place))
        return None if place.is_dir() else place

    @property
    def index_folder(self) -> Path | None:
        """Folder that `virtex index` wrote: for a manifest held out for validation, the other."""
        if self.folder is None:
            return None
        return Path(os.path.normpath(self.folder / (self.records_place or RECORDS))).parent

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
            f"raise data.fault_limit.{self._lists_of_faults()}"
        )

    def _lists_of_faults(self) -> str:
        """Return which files list what cannot be used; the examples, beside the records."""
        if self.folder is None or self.index_folder is None:
            return ""
        texts = [f"{self.folder / HEADER} lists the broken shards"] * bool(self.left_out)
        faults = self.index_folder / FAULTS
        if self.fault_counts and faults.is_file():
            texts.append(f"{faults} lists the examples with faults")
        return f" {', and '.join(texts)}." if texts else ""

    def write(self, folder: Path) -> None:
        """Write manifest.json, the last, and kept.npy; the root is relative if it holds `folder`.

        Raises:
            DataError: The folder cannot be written.
        """
        if self.kept_sha256:
            with files.replacing(folder / KEPT) as temporary, temporary.open("wb") as file:
                np.save(file, self._bits, allow_pickle=False)
        files.write(folder / HEADER, self._text(root_from(folder, self.root)))
        if not self.kept_sha256:
            with contextlib.suppress(OSError):
                (folder / KEPT).unlink()

    def _text(self, root: str) -> str:
        header = {
            "virtex_manifest": VERSION,
            "root": root,
            **({} if self.pattern is None else {"pattern": self.pattern}),
            "num_shards": len(self),
            "num_examples": int(self.num_examples.sum()),
            "num_kept": self.num_all_kept,
            "kept_sha256": self.kept_sha256,
            "records": self.records_place,
            "digest": self.digest,
            "faults": dict(sorted(self.fault_counts.items())),
            "left_out": [list(one) for one in self.left_out],
            **({} if self.reading is None else asdict(self.reading)),
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
        except ARRAY_ERRORS as error:
            raise DataError(f"{path} cannot be read ({error}). Index the shards again.") from error
        is_sound = bits.dtype == np.uint8 and bits.shape == (self._byte_starts[-1],)
        if not is_sound or hashlib.sha256(bits).hexdigest() != self.kept_sha256:
            raise DataError(f"{path} does not fit {HEADER}. Index the shards again.")
        return bits
