"""Where each example of a tar shard lies, read by position from a memory-mapped file.

A row is read in microseconds, and all processes of a node share the pages of the file; nothing
grows with the number of examples.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from virtex import files
from virtex.data.packed import Arrays, PackedStrings
from virtex.data.sources.tar_members import Extent, find_members
from virtex.data.sources.tar_samples import TarSample, find_samples
from virtex.errors import DataError

VERSION = "1"
SUFFIX = ".safetensors"
"""Suffix that the name of a shard's records has beside the shard's name."""
METADATA = "virtex"
"""Key of all metadata as JSON: safetensors writes several keys in random order."""
COLUMNS = 6
"""Offset and size of the image, its .txt and its .json file; the size of a missing file is -1."""
MAX_KEY_BYTES = 2**16
"""Longest key that is read."""


class Extents(NamedTuple):
    """The parts of a shard that hold the files of an example."""

    image: Extent
    text: Extent | None
    metadata: Extent | None


class Records:
    """The examples (N) of a shard in the order of their images.

    It is opened by the process that reads it, and is not picklable.

    Raises:
        DataError: The file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            files.open_regular(path).close()  # a named pipe would be waited for
            self._file = _opened(path)
            self.metadata: Mapping[str, str] = json.loads(self._file.metadata()[METADATA])
            self._rows, self._starts, self._text = map(
                self._file.get_slice, ("records", "key_starts", "key_text")
            )
            shapes = [each.get_shape() for each in (self._rows, self._starts, self._text)]
            types = [each.get_dtype() for each in (self._rows, self._starts, self._text)]
            self.shard_size = int(self.metadata["shard_size"])
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise _damaged(path) from error
        self._num_examples = shapes[1][0] - 1 if len(shapes[1]) == 1 else -1
        is_sound = shapes[0] == [self._num_examples, COLUMNS] and len(shapes[2]) == 1
        if types != ["I64", "I64", "U8"] or not is_sound or self.metadata.get("version") != VERSION:
            raise _damaged(path)

    def __len__(self) -> int:
        return self._num_examples

    def extents(self, position: int) -> Extents:
        """Return where the files of the example at a position lie."""
        row = self._rows[self._checked(position) : position + 1][0].tolist()
        image, text, metadata = (self._extent(row[at], row[at + 1]) for at in (0, 2, 4))
        if image is None:
            raise _damaged(self.path)
        return Extents(image, text, metadata)

    def key(self, position: int) -> str:
        """Return the image's name without its suffix."""
        first, end = self._starts[self._checked(position) : position + 2].tolist()
        if first < 0 or not 0 < end - first <= MAX_KEY_BYTES:
            raise _damaged(self.path)
        try:
            return self._text[first:end].tobytes().decode("utf-8", "surrogatepass")
        except (SafetensorError, ValueError) as error:
            raise _damaged(self.path) from error

    def array(self, name: str) -> NDArray[np.generic] | None:
        """Return a further array of the file; None if it has none of this name."""
        names: Sequence[str] = self._file.keys()
        return self._file.get_tensor(name) if name in names else None

    def _checked(self, position: int) -> int:
        if not 0 <= position < self._num_examples:
            raise IndexError(position)
        return position

    def _extent(self, offset: int, size: int) -> Extent | None:
        if size == -1:
            return None
        if not 0 <= offset <= offset + size <= self.shard_size:
            raise _damaged(self.path)
        return Extent(offset, size)


def find_examples(shard: Path) -> tuple[list[TarSample], Counter[str]]:
    """Return the examples of a local shard, and a count by reason of the files left out.

    Raises:
        BrokenShardError: The shard is truncated, cannot be read, or is not a tar file.
    """
    members, unreadable = find_members(shard)
    samples, others = find_samples(members)
    return samples, unreadable + others


def write_records(shard: Path, path: Path) -> None:
    """Write the records of a local shard atomically; Raises: see `find_examples`."""
    samples, _ = find_examples(shard)
    save_records(path, samples, shard_size=shard.stat().st_size)


def save_records(
    path: Path,
    samples: Sequence[TarSample],
    *,
    shard_size: int,
    arrays: Arrays | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the records of examples atomically.

    Args:
        shard_size: Size of the shard in bytes.
        arrays: Further arrays to keep, by name.
        metadata: Further texts to keep, by name.
    """
    keys = PackedStrings(sample.key for sample in samples).arrays()
    content = {
        "records": _rows(samples),
        "key_text": keys["text"],
        "key_starts": keys["starts"],
        **(arrays or {}),
    }
    texts = {**(metadata or {}), "version": VERSION, "shard_size": str(shard_size)}
    both = {METADATA: json.dumps(texts, sort_keys=True)}
    files.write(path, to_safetensors(content, both))


def _rows(samples: Sequence[TarSample]) -> NDArray[np.int64]:
    rows = np.full((len(samples), COLUMNS), -1, np.int64)
    for row, sample in zip(rows, samples, strict=True):
        for column, extent in enumerate((sample.image, sample.text, sample.metadata)):
            if extent is not None:
                row[2 * column : 2 * column + 2] = extent
    return rows


def _opened(path: Path) -> Any:
    return safe_open(path, framework="numpy")


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged: delete it, and it is made again.")
