"""The lane order's slow twin: lists of all examples of an epoch, cut and shuffled one by one."""

from collections.abc import Sequence

import numpy as np

from virtex.data.keyed_permutation import hashed, permuted
from virtex.data.lanes import SHARDS_STREAM


def lanes_of_epoch(
    counts: Sequence[int], *, seed: int, epoch: int, num_lanes: int, shards_per_block: int = 1
) -> list[list[int]]:
    """The examples of each lane in an epoch, in their order."""
    rng = np.random.default_rng([seed, epoch, SHARDS_STREAM, 0])
    shards = [shard for shard, count in enumerate(counts) if count]
    order = [shards[index] for index in rng.permutation(len(shards))]
    key = rng.integers(2**64, dtype=np.uint64)
    cut = int(rng.integers(counts[order[0]]))
    firsts = np.cumsum([0, *counts])
    pieces = [list(range(firsts[shard], firsts[shard + 1])) for shard in order]
    pieces = [pieces[0][cut:], *pieces[1:], pieces[0][:cut]]
    row = [(number, example) for number, piece in enumerate(pieces) for example in piece]
    length = len(row) // num_lanes
    return [
        _shuffled(row[lane * length : (lane + 1) * length], key, lane, shards_per_block)
        for lane in range(num_lanes)
    ]


def batch(
    lanes: Sequence[Sequence[tuple[int, int]]], step: int, size: int
) -> list[tuple[int, int]]:
    """A batch of `size` examples from the lanes' rows of (epoch, example)."""
    part = size // len(lanes)
    return [sample for lane in lanes for sample in lane[step * part : (step + 1) * part]]


def _shuffled(
    lane: Sequence[tuple[int, int]], key: np.uint64, number: int, shards_per_block: int
) -> list[int]:
    blocks: dict[int, list[int]] = {}
    for piece, example in lane:
        blocks.setdefault((piece - lane[0][0]) // shards_per_block, []).append(example)
    shuffled = []
    for block, examples in blocks.items():
        size = len(examples)
        own = hashed(hashed(np.array([key]), np.array([number], "u8")), np.array([block], "u8"))
        order = permuted(np.arange(size, dtype="u8"), np.full(size, size, "u8"), own.repeat(size))
        shuffled += [examples[at] for at in order.tolist()]
    return shuffled
