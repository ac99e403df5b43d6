"""Which examples make up each batch.

Training reads one endless row of positions: epoch after epoch, each a permutation of the examples
from (seed, epoch). Batch t holds the positions from t * batch_size on, across the border of epochs;
rank r takes the r-th part of it.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Place(NamedTuple):
    """One use of an example: which, and in which epoch."""

    epoch: int
    example_index: int


class TrainingOrder:
    """Which examples make up this rank's part of each batch; iterates from `start_step` on."""

    def __init__(
        self,
        num_examples: int,
        *,
        seed: int,
        batch_size: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_examples, self.seed = num_examples, seed
        self.batch_size, self.part = batch_size, batch_size // world_size
        self.start_step, self.rank = start_step, rank

    def __iter__(self) -> Iterator[list[Place]]:
        step = self.start_step
        while True:
            first = step * self.batch_size + self.rank * self.part
            yield [self.place(position) for position in range(first, first + self.part)]
            step += 1

    def place(self, position: int) -> Place:
        """The example at a position of the endless row."""
        epoch, offset = divmod(position, self.num_examples)
        return Place(epoch, int(permutation(self.seed, epoch, self.num_examples)[offset]))


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, num_examples: int) -> NDArray[np.int64]:
    """The order of the examples in one epoch; kept for the batches that follow."""
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def validation_order(
    num_examples: int, batch_size: int, *, rank: int, world_size: int
) -> Iterator[list[Place]]:
    """This rank's part of each batch over all examples in order; the last parts may be smaller."""
    part = batch_size // world_size
    for first in range(rank * part, num_examples, batch_size):
        last = min(first + part, num_examples)
        yield [Place(0, index) for index in range(first, last)]
