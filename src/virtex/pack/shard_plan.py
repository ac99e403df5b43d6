"""The shards of a split: which examples each holds, in which order, under which keys."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.shards.manifest import SourceShard
from virtex.pack.shard_groups import ShardGroups

PACKING_STREAM = 0x9AC_4ED
"""Seed that sets the order in the shards apart from that of an epoch."""
PIECE = 16
"""Examples that one process packs at a time."""


class Piece(NamedTuple):
    """Consecutive examples of a shard."""

    shard: int
    start: int
    """Position in the shard of the first one."""
    stop: int


@dataclass(frozen=True)
class ShardPlan:
    """A split's examples, shuffled by the seed, in shards of equal size up to one example."""

    num_examples: int
    num_shards: int
    seed: int
    groups: ShardGroups | None = None
    """The shards of a source in a store, which are shuffled group by group."""

    def size(self, shard: int) -> int:
        """Return the number of examples in a shard, bad ones included."""
        return self._start(shard + 1) - self._start(shard)

    def indices(self, piece: Piece) -> list[int]:
        """Return the indices in the source of a piece's examples."""
        first = self._start(piece.shard)
        return self.order[first + piece.start : first + piece.stop].tolist()

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """All indices, in the order of the shards."""
        if self.groups is not None:
            return self.groups.order()
        return np.random.default_rng([self.seed, PACKING_STREAM]).permutation(self.num_examples)

    def shards_needed(self, first_step: int, num_steps: int) -> list[SourceShard]:
        """Return the shards in a store that some shards of the plan need, for a filler."""
        last = min(first_step + num_steps, self.num_shards)
        if self.groups is None:
            return []
        return self.groups.places_of(self._start(first_step), self._start(last))

    def name(self, shard: int) -> str:
        """Return the name of a shard without its suffix."""
        return f"{shard:0{max(5, len(str(self.num_shards - 1)))}d}"

    def key(self, shard: int, position: int) -> str:
        """Return the key of an example; no other shard has it, and all are equally long."""
        largest = -(-self.num_examples // self.num_shards) - 1
        return f"{self.name(shard)}{position:0{max(4, len(str(largest)))}d}"

    def pieces(self, shards: Iterable[int]) -> Iterator[Piece]:
        """Yield the pieces of some shards, in their order."""
        for shard in shards:
            size = self.size(shard)
            for start in range(0, size, PIECE):
                yield Piece(shard, start, min(start + PIECE, size))

    def _start(self, shard: int) -> int:
        return shard * self.num_examples // self.num_shards
