"""Statistics of the captions of a source, in one pass over them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Source
from virtex.data_check.caption_measures import SPECIAL_TOKENS, measure
from virtex.data_check.letters import SCRIPTS
from virtex.progress import ProgressBar

BATCH_CAPTIONS, BATCH_LETTERS = 4096, 2**21
"""Captions, and their characters, that are measured at a time."""
MOST_COUNTED = 1000
"""Words, tokens and captions above which numbers are counted as one."""
EACH = ("hashes", "images", "faults", "is_long")
"""Fields of `CaptionStatistics` with an entry for each caption."""


class Histogram:
    """Counts of the numbers 0 to MOST_COUNTED, of which the last stands for all above."""

    def __init__(self) -> None:
        self.counts = np.zeros(MOST_COUNTED + 1, np.int64)
        self.largest = 0

    def add(self, numbers: NDArray[np.int64]) -> None:
        clipped = np.minimum(numbers, MOST_COUNTED)
        self.counts += np.bincount(clipped, minlength=len(self.counts))
        self.largest = max(self.largest, int(numbers.max(initial=0)))

    def quantile(self, fraction: float) -> int:
        """Return the smallest number that at least this fraction of the numbers do not exceed."""
        sums = np.cumsum(self.counts)
        return int(np.searchsorted(sums, max(1, np.ceil(fraction * sums[-1]))))

    def above(self, number: int) -> int:
        """Return how many numbers are larger than one."""
        return int(self.counts[number + 1 :].sum())


@dataclass
class CaptionStatistics:
    """Counts of captions; the last four have an entry for each, 14 bytes together."""

    per_image: Histogram = field(default_factory=Histogram)
    words: Histogram = field(default_factory=Histogram)
    tokens: Histogram = field(default_factory=Histogram)
    scripts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCRIPTS), np.int64))
    hashes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Hashes of the captions, without regard to case and outer spaces; of this process alone."""
    images: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Index of the image of each caption."""
    faults: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    is_long: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Whether each caption has more than `max_tokens` tokens."""

    def __len__(self) -> int:
        return len(self.hashes)

    def num_with(self, fault: int) -> int:
        """Return the number of captions that have a fault."""
        return int(np.count_nonzero(self.faults & fault))


def hash_of(caption: str) -> int:
    """Return a hash of a caption that case and outer spaces do not change."""
    return hash(caption.strip().lower())


def count_captions(
    source: Source,
    *,
    title: str,
    max_tokens: int,
    num_tokens: Callable[[str], int] | None = None,
    on_read: Callable[[int], object] = lambda stop: None,
) -> CaptionStatistics:
    """Read all captions of a source and count them.

    Args:
        num_tokens: Returns the number of a caption's tokens; by default it is estimated.
        on_read: Called now and then with the number of images whose captions have been read.
    """
    total = CaptionStatistics()
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in EACH}
    with ProgressBar(title, len(source)) as bar:
        for first, lists in _batches(source):
            captions = [caption for texts in lists for caption in texts]
            measures = measure(captions)
            tokens = measures.pieces + SPECIAL_TOKENS
            if num_tokens is not None:
                tokens = np.fromiter(map(num_tokens, captions), np.int64, len(captions))
            numbers = np.fromiter(map(len, lists), np.int64, len(lists))
            total.per_image.add(numbers)
            total.words.add(measures.words)
            total.tokens.add(tokens)
            total.scripts += np.bincount(measures.scripts, minlength=len(SCRIPTS))
            owners = np.arange(first, first + len(lists), dtype=np.int32)
            pieces["hashes"].append(np.fromiter(map(hash_of, captions), np.int64, len(captions)))
            pieces["images"].append(np.repeat(owners, numbers))
            pieces["faults"].append(measures.faults)
            pieces["is_long"].append(tokens > max_tokens)
            on_read(first + len(lists))
            bar.reach(first + len(lists))
    for name, arrays in pieces.items():
        setattr(total, name, np.concatenate([getattr(total, name), *arrays]))
        arrays.clear()
    return total


def _batches(source: Source) -> Iterator[tuple[int, Sequence[tuple[str, ...]]]]:
    """Yield the index of a first image, and its captions and those of the images after it."""
    first, lists = 0, []
    num_captions = num_letters = 0
    for index in range(len(source)):
        captions = source.captions(index)
        lists.append(captions)
        num_captions += len(captions)
        num_letters += sum(map(len, captions))
        if num_captions >= BATCH_CAPTIONS or num_letters >= BATCH_LETTERS:
            yield first, lists
            first, lists = index + 1, []
            num_captions = num_letters = 0
    if lists:
        yield first, lists
