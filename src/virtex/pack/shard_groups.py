"""The order of packing shards of a store: group by group, so that few are needed at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from virtex.data.packed import starts_of
from virtex.data.shards.manifest import SourceShard

GROUP = 16
"""Shards whose examples are shuffled together."""


@dataclass(frozen=True, eq=False)
class ShardGroups:
    """Shards in random groups, whose examples are shuffled within each group."""

    counts: NDArray[np.int64]
    """Number of examples of each shard, in the order of the source."""
    places: Sequence[SourceShard | None]
    """The filler's name of each shard; None for one that is here."""
    seed: tuple[int, ...]
    """Random seed of groups and order."""

    def order(self) -> NDArray[np.int64]:
        """Return the indices of all examples in the source, in the order of packing."""
        rng, starts = np.random.default_rng(self.seed), starts_of(self.counts.tolist())
        parts = []
        for group in self._groups:
            own = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in group])
            parts.append(rng.permutation(own))
        return np.concatenate(parts)

    def places_of(self, start: int, stop: int) -> list[SourceShard]:
        """Return the shards that positions from `start` to before `stop` of the order need."""
        if stop <= start:
            return []
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right").tolist()
        shards = (one for group in self._groups[first : last + 1] for one in group.tolist())
        return [place for one in shards if (place := self.places[one]) is not None]

    @cached_property
    def _groups(self) -> list[NDArray[np.int64]]:
        shards = np.random.default_rng([*self.seed, GROUP]).permutation(np.flatnonzero(self.counts))
        return [shards[at : at + GROUP] for at in range(0, len(shards), GROUP)]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Number of examples up to the end of each group."""
        return np.cumsum([self.counts[group].sum() for group in self._groups])
