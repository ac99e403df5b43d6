"""The order of the training and validation samples, and each rank's part of a batch.

Training reads one endless sequence of positions: each epoch is a permutation of the examples, drawn
from (seed, epoch). Batch t starts at position t * batch_size, and may span two epochs; rank r takes
the r-th part of it.

Examples may be repeated: one with factor 2.3 comes twice in each epoch, and a third time in 30 % of
them, drawn from (seed, epoch), as in the repeat-factor sampling of Gupta et al., "LVIS", CVPR 2019.
"""

import functools
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.distributed import Share

REPEATS_STREAM = 0x5EED_0F5E_7EA1_C0DE
"""Seed that sets the generator of an epoch's repetitions apart from those of its examples, whose
indices take the same position in the seed and never become so large."""


class Sample(NamedTuple):
    """One use of an example; `repetition` counts its uses in the epoch from 0."""

    epoch: int
    example_index: int
    repetition: int = 0


class TrainingOrder:
    """An endless iterable over this rank's part of each batch, from `start_step` on.

    Args:
        repeats: (num_examples,) repeat factors, at least 1; None for 1.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        seed: int,
        batch_size: int,
        start_step: int = 0,
        share: Share = Share(),
        repeats: NDArray[np.float64] | None = None,
    ) -> None:
        self.num_examples, self.seed = num_examples, seed
        self.batch_size, self.part = batch_size, batch_size // share.world_size
        self.start_step, self.rank = start_step, share.rank
        self.repeats, self._ends = repeats, [0]
        self._uses: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __iter__(self) -> Iterator[list[Sample]]:
        step = self.start_step
        while True:
            first = step * self.batch_size + self.rank * self.part
            yield [self.sample(position) for position in range(first, first + self.part)]
            step += 1

    def sample(self, position: int) -> Sample:
        """Return the sample at a position of the endless sequence."""
        if self.repeats is None:
            epoch, offset = divmod(position, self.num_examples)
            return Sample(epoch, int(permutation(self.seed, epoch, self.num_examples)[offset]))
        epoch = self._epoch_of(position)
        examples, repetitions = self._epoch(epoch)
        offset = int(permutation(self.seed, epoch, len(examples))[position - self._ends[epoch]])
        return Sample(epoch, int(examples[offset]), int(repetitions[offset]))

    def _epoch_of(self, position: int) -> int:
        while self._ends[-1] <= position:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)[0]))
        return bisect_right(self._ends, position) - 1

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the examples of an epoch and their repetition numbers, before permutation."""
        if epoch not in self._uses:
            assert self.repeats is not None
            draws = np.random.default_rng([self.seed, epoch, REPEATS_STREAM])
            whole = np.floor(self.repeats)
            more = draws.random(len(self.repeats)) < self.repeats - whole
            counts = whole.astype(np.int64) + more
            starts = np.cumsum(counts) - counts
            examples = np.repeat(np.arange(len(counts)), counts)
            self._uses = {epoch: (examples, np.arange(len(examples)) - starts[examples])}
        return self._uses[epoch]


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, num_examples: int) -> NDArray[np.int64]:
    """Return the order of one epoch, cached for its other batches.

    Numpy pads seeds with zeros, so this generator starts as that of the epoch's example 0 does.
    """
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def validation_order(
    num_examples: int, batch_size: int, *, share: Share = Share()
) -> Iterator[list[Sample]]:
    """Yield this rank's part of each batch over all examples in order; the last may be smaller."""
    part = batch_size // share.world_size
    for first in range(share.rank * part, num_examples, batch_size):
        last = min(first + part, num_examples)
        yield [Sample(0, index) for index in range(first, last)]
