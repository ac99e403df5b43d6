"""The lane order of training samples, for hundreds of millions of examples in shards.

An epoch permutes the shards, drawn from (seed, epoch), and puts their examples in a row. The row
begins within a shard, at a drawn example, and is cut into L equal lanes; the few examples that are
left over (N % L) sit this epoch out. A lane is cut into blocks, its part of a few consecutive
shards, and the examples of a block are permuted by a key. Batch t takes the next B / L examples of
each lane, in lane order, and a process has a contiguous group of lanes.

So a batch depends on (seed, t, B, L) alone, a process reads the shards of its own lanes only, and
what is kept in memory is two numbers for each shard.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.keyed_permutation import hashed, permuted
from virtex.data.mixture import Mixture
from virtex.data.order import Sample
from virtex.data.shards.manifest import SourceShard
from virtex.distributed import Share
from virtex.errors import ConfigError, DataError

Ints = NDArray[np.int64]
Counts = Sequence[int] | Ints
MAX_LANES = 64
"""Most lanes that are chosen by default."""
SHARDS_STREAM = 0x1A2E_0F5A_A2D5_7EED
"""Seed that sets the generator of an epoch's shards apart from those of its examples."""
MAX_SHOWN = 20


class LaneOrder:
    """An endless iterable over this rank's part of each batch, from `start_step` on.

    Args:
        counts: (S,) number of examples of each shard; for mixed sources one such array each, whose
            indices follow each other.
        num_lanes: A divisor of `batch_size`; by default the largest that is at most 64.
        shards_per_block: Consecutive shards of a lane whose examples are permuted together.
        weights: Proportion of the examples of each mixed source, in any unit.

    Raises:
        ConfigError: The numbers of lanes, processes and examples in a batch do not fit.
        DataError: A source has fewer examples than there are lanes.
    """

    def __init__(
        self,
        counts: Counts | Sequence[Counts],
        *,
        seed: int,
        batch_size: int,
        num_lanes: int | None = None,
        shards_per_block: int = 1,
        weights: Sequence[float] | None = None,
        start_step: int = 0,
        share: Share = Share(),
    ) -> None:
        self.num_lanes = default_num_lanes(batch_size) if num_lanes is None else num_lanes
        check_lanes(self.num_lanes, batch_size=batch_size, num_processes=share.world_size)
        sources = [np.asarray(one, np.int64) for one in _one_by_one(counts)]
        sizes = [int(one.sum()) for one in sources]
        first_examples = np.cumsum([0, *sizes[:-1]]).tolist()
        self.mixture = Mixture(weights or [1], batch_size=batch_size, num_lanes=self.num_lanes)
        self.sources = [
            _Lanes(one, first, seed=[seed, index], num_lanes=self.num_lanes, block=shards_per_block)
            for index, (one, first) in enumerate(zip(sources, first_examples, strict=True))
        ]
        self.start_step = start_step
        part = self.num_lanes // share.world_size
        self.lanes = np.arange(share.rank * part, (share.rank + 1) * part)

    def __iter__(self) -> Iterator[list[Sample]]:
        step = self.start_step
        while True:
            yield self.samples(step)
            step += 1

    def samples(self, step: int) -> list[Sample]:
        """Return this rank's part of a batch."""
        epochs, examples = self._examples(step)
        values = zip(epochs.tolist(), examples.tolist(), repeat(0), strict=False)
        return [*map(tuple.__new__, repeat(Sample), values)]  # twice as fast as Sample(...)

    def shards_needed(self, first_step: int, num_steps: int) -> list[SourceShard]:
        """Return the shards that this rank's part of some batches needs, in order of first use."""
        begins, ends = (
            self.mixture.uses_before(step)[self.lanes]
            for step in (first_step, first_step + num_steps)
        )  # (L, K)
        uses: list[tuple[float, int, SourceShard]] = []
        for index, source in enumerate(self.sources):
            for lane, begin, end in zip(self.lanes, begins[:, index], ends[:, index], strict=True):
                for position, shard in source.shards(int(lane), int(begin), int(end)):
                    when = (position - begin) / (end - begin)
                    uses.append((when, int(lane), SourceShard(index, shard)))
        return list(dict.fromkeys(shard for _, _, shard in sorted(uses)))

    def _examples(self, step: int) -> tuple[Ints, Ints]:
        """Return the epochs and indices of this rank's part of a batch, (B / R,) each."""
        sources = self.mixture.sources(step)[self.lanes]  # (L, B / L)
        before = self.mixture.uses_before(step)[self.lanes]  # (L, K)
        lanes = np.broadcast_to(self.lanes[:, None], sources.shape)
        epochs, examples = np.empty_like(sources), np.empty_like(sources)
        for index, source in enumerate(self.sources):
            is_own = sources == index
            positions = before[:, index, None] + np.cumsum(is_own, axis=1) - 1
            found = source.examples(lanes[is_own], positions[is_own])
            epochs[is_own], examples[is_own] = found
        return epochs.ravel(), examples.ravel()


def default_num_lanes(batch_size: int) -> int:
    """Return the largest divisor of the batch size that is at most MAX_LANES."""
    return max(number for number in range(1, MAX_LANES + 1) if batch_size % number == 0)


def check_lanes(num_lanes: int, *, batch_size: int, num_processes: int) -> None:
    """Raise a ConfigError if batches or processes cannot be split equally over the lanes."""
    if num_lanes < 1 or batch_size % num_lanes:
        raise ConfigError(
            f"--data.num_lanes {num_lanes} does not divide the batch size {batch_size}: choose one "
            f"of {_some(_divisors(batch_size))}"
        )
    if num_lanes % num_processes:
        fitting = [number for number in _divisors(batch_size) if number % num_processes == 0]
        other = f" --data.num_lanes {_some(fitting)}, or" if fitting else ""
        raise ConfigError(
            f"{num_lanes} lanes cannot be split equally over {num_processes} processes: start "
            f"{_some(_divisors(num_lanes))} processes, or begin a new run with{other} another "
            "batch size"
        )


def _one_by_one(counts: Counts | Sequence[Counts]) -> Sequence[Counts]:
    """Return the counts of each source, also where those of the only one are given."""
    return [counts] if np.ndim(counts[0]) == 0 else counts  # type: ignore[list-item, return-value]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_SHOWN]))
    return shown + ", ..." * (len(numbers) > MAX_SHOWN)


class _Row(NamedTuple):
    """The examples of an epoch in a row, as P pieces of shards."""

    shards: Ints
    """Shard of each piece, (P,)."""
    firsts: Ints
    """Index of the first example of each piece, (P,)."""
    starts: Ints
    """Position of each piece in the row, and the end of the last one, (P + 1,)."""
    key: NDArray[np.uint64]
    """Random bits, (1,)."""


class _Lanes:
    """The lanes of one source, each an endless row of examples.

    Args:
        first: Index of its first example.
        block: Consecutive pieces of shards that are permuted together.
    """

    def __init__(
        self, counts: Ints, first: int, *, seed: list[int], num_lanes: int, block: int
    ) -> None:
        self.seed, self.num_lanes, self.block = seed, num_lanes, block
        self.counts, self.firsts = counts, first + np.cumsum(counts) - counts
        self.kept = np.flatnonzero(counts)
        num_examples = int(counts.sum())
        self.length = num_examples // num_lanes
        """Examples of a lane in an epoch."""
        if not self.length:
            raise DataError(
                f"there are {num_examples:,} examples in the shards, fewer than the {num_lanes} "
                "lanes that a batch is read in: give more data, or a lower --data.num_lanes"
            )
        self._rows: dict[int, _Row] = {}

    def examples(self, lanes: Ints, positions: Ints) -> tuple[Ints, Ints]:
        """Return the epochs and indices of the examples at positions of lanes, (M,) each."""
        epochs, positions = np.divmod(positions, self.length)
        examples = np.empty_like(epochs)
        for epoch in sorted(set(epochs.tolist())):
            is_in = epochs == epoch
            row = self._row(epoch)
            places = self._permuted(row, lanes[is_in], positions[is_in])
            pieces = _piece_at(row, places)
            examples[is_in] = row.firsts[pieces] + places - row.starts[pieces]
        return epochs, examples

    def shards(self, lane: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the shards of the examples from one position of a lane to another.

        Each comes with the position from which it is needed, that where its block begins.
        """
        while begin < end:
            epoch, position = divmod(begin, self.length)
            last = min(end - epoch * self.length, self.length) - 1
            row, start = self._row(epoch), lane * self.length
            places = np.array([start + position, start + last])
            firsts, ends, _ = self._block_at(row, np.array([lane, lane]), places)
            for piece in range(int(firsts[0]), int(ends[1])):
                block = piece - (piece - int(firsts[0])) % self.block
                since = epoch * self.length + int(row.starts[block]) - start
                if row.starts[piece] < start + self.length:
                    yield max(begin, since), int(row.shards[piece])
            begin = (epoch + 1) * self.length

    def _permuted(self, row: _Row, lanes: Ints, positions: Ints) -> Ints:
        """Return the places in the row of the examples at positions of lanes (M,)."""
        starts = lanes * self.length
        places = starts + positions
        firsts, ends, blocks = self._block_at(row, lanes, places)
        begins = np.maximum(row.starts[firsts], starts)
        sizes = np.minimum(row.starts[ends], starts + self.length) - begins
        keys = hashed(hashed(row.key, lanes.astype(np.uint64)), blocks.astype(np.uint64))
        inside = (places - begins).astype(np.uint64)
        return begins + permuted(inside, sizes.astype(np.uint64), keys).astype(np.int64)

    def _block_at(self, row: _Row, lanes: Ints, places: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the first piece, the end and the number in its lane of each place's block."""
        lane_firsts = _piece_at(row, lanes * self.length)
        blocks = (_piece_at(row, places) - lane_firsts) // self.block
        firsts = lane_firsts + blocks * self.block
        return firsts, np.minimum(firsts + self.block, len(row.shards)), blocks

    def _row(self, epoch: int) -> _Row:
        """Return the row of an epoch; those of it and the one before are kept."""
        if epoch not in self._rows:
            before = self._rows.get(epoch - 1)
            self._rows = {} if before is None else {epoch - 1: before}
            self._rows[epoch] = self._drawn_row(epoch)
        return self._rows[epoch]

    def _drawn_row(self, epoch: int) -> _Row:
        seed, source = self.seed
        rng = np.random.default_rng([seed, epoch, SHARDS_STREAM, source])
        shards = self.kept[rng.permutation(len(self.kept))]
        key = rng.integers(2**64, size=1, dtype=np.uint64)
        cut = int(rng.integers(self.counts[shards[0]]))  # the row begins in the first shard
        shards = np.append(shards, shards[0])
        firsts, counts = self.firsts[shards], self.counts[shards]
        firsts[0], counts[0], counts[-1] = firsts[0] + cut, counts[0] - cut, cut
        return _Row(shards, firsts, np.concatenate([[0], np.cumsum(counts)]), key)


def _piece_at(row: _Row, places: Ints) -> Ints:
    """Return the piece of the row in which each place lies."""
    return np.searchsorted(row.starts, places, side="right") - 1
