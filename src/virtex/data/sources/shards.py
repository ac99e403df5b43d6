"""Tar shards that a manifest lists, read by offset: images and captions, from disk or a cache.

Nothing here grows with the number of examples. An index leads to its shard by the numbers of kept
examples, and there to the offsets of its files, which are memory-mapped. An image and its captions
lie side by side in a shard, and are read at once.
"""

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, absent_files
from virtex.data.example import Example, ShardCounts, Source
from virtex.data.pixels import MAX_FILE_BYTES, BadImageError
from virtex.data.shards.gather import read_sample
from virtex.data.shards.manifest import CAPTIONS, Manifest
from virtex.data.shards.records import SUFFIX, Records
from virtex.data.sidecars import NO_KEYS, TEXT_KEY, keys_and_weights, keys_identity
from virtex.data.sources.shard_captions import (
    CaptionFiles,
    caption_files,
    check_found,
    index_command,
    needs_look,
    own_keys,
    sidecar_of,
)
from virtex.data.sources.shard_state import ShardStates
from virtex.data.sources.tar_members import Extent
from virtex.errors import DataError
from virtex.files import open_regular

Locate = Callable[[int], Path]
"""Function of a shard's index that returns its local path, called at each use; the records of the
shard lie beside it."""
MAX_OPEN = 256
"""Most shards whose records a process holds open; each takes some address space alone."""
MAX_GAP = 2**16
"""Most bytes between two files of an example that are read with them rather than skipped."""
INDEX_AGAIN = "Index the shards again by virtex index."
NUM_SHARDS_LOOKED_AT, NUM_LOOKED_AT = 8, 200
"""Most shards, and most examples of them, that are looked at for caption keys."""
NUM_SHARDS_SAMPLED = 100
"""Most shards that a sample of captions is read from."""


class _Opened(NamedTuple):
    """The records of a shard, and which of its examples are kept."""

    shard: int
    name: str
    records: Records
    positions: NDArray[np.int64] | None
    """Positions of the kept examples; None if all are kept."""


class ShardedSource(Source):
    """The kept examples of a manifest, in its order; image ids are SHARD/KEY.

    Args:
        with_captions: Read captions; an image without one counts as bad.
        caption_keys: See `SourceConfig`; by default those that the manifest was indexed for.
        fault_limit: Largest fraction of examples that the manifest may list as faulty.
        locate: See `Locate`; by default shards lie in the manifest's root.
        has_own_records: Take the manifest's records, where there are any, although `locate` has
            others: ids are then known without the shard.

    Raises:
        DataError: Shards are missing, none of their examples is kept, or too many are faulty.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        with_captions: bool = True,
        caption_keys: Mapping[str, float] = NO_KEYS,
        fault_limit: float = 1.0,
        locate: Locate | None = None,
        has_own_records: bool = False,
    ) -> None:
        self.manifest, self.with_captions, self._locate = manifest, with_captions, locate
        self._has_own_records = has_own_records or locate is None
        self._keys = dict(caption_keys or own_keys(manifest))
        self.caption_keys = tuple(self._keys)
        self._has_own_keys = bool(self._keys and not caption_keys)
        self.shard_counts = ShardCounts((manifest.num_kept,))
        self._root = Path(manifest.root)
        self._states = ShardStates(manifest)
        self._opened: OrderedDict[int, _Opened] = OrderedDict()
        manifest.check_faults(fault_limit)
        problems = Problems(f"the manifest {manifest.folder or manifest.root}")
        if not len(self):
            problems.add("It keeps no example. Index the shards again, or keep other examples.")
        if locate is None:
            absent = absent_files(Path(manifest.root), manifest.names)
            problems.add_all(
                f"shards missing in {manifest.root}", absent, "Restore or index them again."
            )
            if manifest.absent_records is not None:
                problems.add(_without_records(manifest, manifest.absent_records))
        problems.check()

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files out: each process opens its own."""
        return {**self.__dict__, "_opened": OrderedDict()}

    def __len__(self) -> int:
        return int(self.manifest.kept_starts[-1])

    def __getitem__(self, index: int) -> Example:
        opened, position = self._place(index)
        image_id = f"{opened.name}/{opened.records.key(position)}"
        extents = opened.records.extents(position)
        if extents.image.size > MAX_FILE_BYTES:
            raise BadImageError(image_id, f"a file of {extents.image.size:,} bytes")
        if not self.with_captions:
            return Example(image_id, self._read(opened, [extents.image])[0])
        files = caption_files(extents, self._keys)
        image, *contents = self._read(opened, [extents.image, *files.values()])
        sidecar = sidecar_of(extents, dict(zip(files, contents, strict=True)), self._keys)
        if not sidecar.captions:
            raise BadImageError(image_id, f"its caption is {sidecar.fault}")
        keys, weights = keys_and_weights(sidecar.counts, self._keys)
        return Example(image_id, image, sidecar.captions, weights, keys)

    def image_id(self, index: int) -> str:
        opened, position = self._place(index)
        return f"{opened.name}/{opened.records.key(position)}"

    def captions(self, index: int) -> tuple[str, ...]:
        if not self.with_captions:
            return ()
        opened, position = self._place(index)
        extents = opened.records.extents(position)
        files = caption_files(extents, self._keys)
        contents = self._read(opened, [*files.values()]) if files else []
        return sidecar_of(extents, dict(zip(files, contents, strict=True)), self._keys).captions

    def check_captions(self, given: Mapping[str, float], *, first: int | None = None) -> None:
        """Check some examples for captions of each key, unless the manifest shows that they have.

        Args:
            given: Caption keys that the options name.
            first: Shard to look at alone; by default some of all shards.

        Raises:
            ConfigError: None of them has any.
            DataError: A shard cannot be read.
        """
        if needs_look(self.manifest, given):
            place = str(self.manifest.folder or self.manifest.root)
            check_found(place, self._keys, map(self._caption_files, self._some(first)))

    def _some(self, first: int | None) -> Iterator[int]:
        """Yield the indices of a few examples, evenly spaced in each of a few shards."""
        full = np.flatnonzero(self.manifest.num_kept)
        spaced = full[:: -(-len(full) // NUM_SHARDS_LOOKED_AT)].tolist()
        shards = spaced if first is None else [first]
        for shard in shards:
            start, end = self.manifest.kept_starts[shard : shard + 2].tolist()
            yield from range(start, end, -(-(end - start) * len(shards) // NUM_LOOKED_AT))

    def _caption_files(self, index: int) -> CaptionFiles:
        opened, position = self._place(index)
        extents = opened.records.extents(position)
        files = caption_files(extents, {TEXT_KEY: 1.0})
        contents = self._read(opened, [*files.values()]) if files else []
        found = dict(zip(files, contents, strict=True))
        return CaptionFiles(found.get("text"), found.get("metadata"))

    def sample_captions(self, limit: int, *, seed: int) -> Iterator[str]:
        """Return at most `limit` drawn captions, of the manifest's own sample if it has one.

        Else they are those of kept examples in a bounded number of shards.
        """
        folder, rng = self.manifest.folder, np.random.default_rng(seed)
        if folder is not None and (folder / CAPTIONS).is_file():
            return iter(_drawn(chain.from_iterable(read_sample(folder)), limit, rng))
        return islice(self._captions_of_some_shards(limit, rng), limit)

    def _captions_of_some_shards(self, limit: int, rng: np.random.Generator) -> Iterator[str]:
        shards = rng.permutation(np.flatnonzero(self.manifest.num_kept))[:NUM_SHARDS_SAMPLED]
        per_shard = -(-limit // max(len(shards), 1))
        starts = self.manifest.kept_starts
        for shard in shards.tolist():
            offsets = rng.permutation(int(self.manifest.num_kept[shard]))[:per_shard]
            for index in (int(starts[shard]) + offsets).tolist():
                yield from self.captions(index)

    def replacements(self, index: int, rng: np.random.Generator, *, number: int) -> Iterable[int]:
        """Return the next examples of the same shard, cyclically, then those of other shards."""
        del rng
        shard = self._shard_of(index)
        start, end = self.manifest.kept_starts[shard : shard + 2].tolist()
        others = (*range(index + 1, end), *range(start, index))[:number]
        beyond = (at % len(self) for at in range(end, end + len(self) - (end - start)))
        return [*others, *islice(beyond, number - len(others))]

    def identity(self) -> dict[str, str | int]:
        return {
            "source": "webdataset",
            "root": self.manifest.root,
            "shards": len(self.manifest),
            "images": len(self),
            **keys_identity(self._keys),
            **({"caption_keys_from": "manifest"} if self._has_own_keys else {}),
            "sha256": self.manifest.digest,
        }

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self.manifest.kept_starts, index, side="right")) - 1

    def _place(self, index: int) -> tuple[_Opened, int]:
        """Return the shard of an example, opened, and the example's position in it."""
        index = range(len(self))[index]
        shard = self._shard_of(index)
        opened = self._open(shard)
        offset = index - int(self.manifest.kept_starts[shard])
        positions = opened.positions
        return opened, offset if positions is None else int(positions[offset])

    def _open(self, shard: int) -> _Opened:
        """Return an opened shard; the last ones that were used stay open."""
        if shard not in self._opened:
            self._opened[shard] = self._with_records(shard)
            if len(self._opened) > MAX_OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(shard)
        return self._opened[shard]

    def _with_records(self, shard: int) -> _Opened:
        about = self.manifest.shard(shard)
        own = self.manifest.records_path(shard) if self._has_own_records else None
        if own is not None and (self._locate is None or own.is_file()):
            path, remedy = own, INDEX_AGAIN
        else:
            located = self._path(shard)
            path, remedy = located.with_name(located.name + SUFFIX), self._remedy(located)
        try:
            records = Records(path)
        except DataError as error:
            raise DataError(f"{error} {remedy}") from error
        if len(records) != about.num_examples or records.shard_size != about.size:
            raise DataError(f"{records.path} does not fit the manifest. {remedy}")
        return _Opened(shard, about.name, records, self.manifest.positions(shard))

    def _path(self, shard: int) -> Path:
        if self._locate is not None:
            return self._locate(shard)
        return self._root / self.manifest.names[shard]

    def _read(self, opened: _Opened, extents: list[Extent]) -> list[bytes]:
        """Read files of a shard, those that lie side by side at once.

        Opening the shard each time leaves forked processes no state to share.
        """
        path = self._path(opened.shard)
        try:
            with self._file(opened, path) as file:
                is_indexed = self._is_indexed(opened, file)
                contents = _contents(file.fileno(), extents)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
        if not is_indexed or [len(one) for one in contents] != [one.size for one in extents]:
            raise DataError(f"{path} has changed since it was indexed. {self._remedy(path)}")
        return contents

    def _is_indexed(self, opened: _Opened, file: io.FileIO) -> bool:
        """Return whether an open shard is the one that was indexed; the cache never changes one."""
        if self._locate is not None:
            return os.fstat(file.fileno()).st_size == opened.records.shard_size
        return self._states.is_indexed(opened.shard, opened.records, file)

    def _remedy(self, path: Path) -> str:
        """Return what to do about a shard that is not as the manifest says."""
        if self._locate is None:
            return f"Index the shards again by {index_command(self.manifest)}."
        return f"Remove {path.parent} from the cache: the same command fetches it again."

    def _file(self, opened: _Opened, path: Path) -> io.FileIO:
        """Open a shard, which may leave the cache between the call of `locate` and this one."""
        try:
            return open_regular(path)
        except FileNotFoundError:
            if self._locate is None:
                raise
            return open_regular(self._locate(opened.shard))


def _drawn(texts: Iterable[str], number: int, rng: np.random.Generator) -> list[str]:
    """Return so many texts drawn from a stream (reservoir sampling), or all if they are fewer."""
    stream = iter(texts)
    drawn = list(islice(stream, number))
    for count, text in enumerate(stream, number + 1):
        place = int(rng.random() * count)
        if place < number:
            drawn[place] = text
    return drawn


def _contents(descriptor: int, extents: list[Extent]) -> list[bytes]:
    """Return the content of files in a shard; it is short where the shard ends before."""
    start = min(extent.offset for extent in extents)
    length = max(extent.offset + extent.size for extent in extents) - start
    if length > sum(extent.size for extent in extents) + MAX_GAP:
        return [os.pread(descriptor, extent.size, extent.offset) for extent in extents]
    whole = os.pread(descriptor, length, start)
    begins = [extent.offset - start for extent in extents]
    return [
        whole[begin : begin + extent.size] for begin, extent in zip(begins, extents, strict=True)
    ]


def _without_records(manifest: Manifest, absent: Path) -> str:
    """Return what to do about a manifest whose folder of records is not there."""
    if manifest.folder == absent.parent:
        return f"{absent} is not there. Copy it too, or index the shards again."
    return (
        f"Its records lie in {absent}, which is not there: a manifest that was held out must lie "
        f"beside the one that it was held out of. Put the folder {absent.parent.name} into "
        f"{absent.parent.parent}."
    )
