"""Millions of strings in a few flat buffers.

A forked worker copies each page of a Python list of strings as it changes reference counts, and
pickling visits each string. A buffer is shared by all workers and pickles as a whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class PackedStrings:
    """A read-only list of strings."""

    def __init__(self, strings: Iterable[str]) -> None:
        # File names that are not UTF-8 hold lone surrogates, which must survive.
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        self._text = b"".join(encoded)
        self._starts = starts_of([len(piece) for piece in encoded])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        piece = self._text[self._starts[index] : self._starts[index + 1]]
        return piece.decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def arrays(self) -> Arrays:
        """Return the buffers, from which `from_arrays` restores this object."""
        return {"text": np.frombuffer(self._text, np.uint8), "starts": self._starts}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        strings = cls(())
        strings._text, strings._starts = arrays["text"].tobytes(), arrays["starts"]
        return strings


class PackedLists:
    """A read-only list of lists of strings: the captions of each image."""

    def __init__(self, lists: Sequence[Sequence[str]]) -> None:
        self.strings = PackedStrings(string for strings in lists for string in strings)
        self._starts = starts_of([len(strings) for strings in lists])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> tuple[str, ...]:
        index = range(len(self))[index]
        first, end = self._starts[index : index + 2].tolist()
        return tuple(map(self.strings.__getitem__, range(first, end)))

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return map(self.__getitem__, range(len(self)))

    def arrays(self) -> Arrays:
        """Return the buffers, from which `from_arrays` restores this object."""
        return {**self.strings.arrays(), "list_starts": self._starts}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        lists = cls(())
        lists.strings, lists._starts = PackedStrings.from_arrays(arrays), arrays["list_starts"]
        return lists


def starts_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Return the offsets (M + 1,) of M consecutive pieces, and the end of the last one."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.asarray(lengths, np.int64), out=starts[1:])
    return starts
