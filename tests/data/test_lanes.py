"""The lane order: the same batches for any number of processes, from any step, in little memory."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import lanes as oracle
from virtex.data.lanes import LaneOrder, default_num_lanes
from virtex.data.order import Sample
from virtex.data.shards.manifest import SourceShard
from virtex.distributed import Share
from virtex.errors import ConfigError, DataError

some_counts = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(lambda c: sum(c) >= 8)
seeds = st.integers(0, 2**63 - 1)


def batches(order: LaneOrder, number: int) -> list[list[Sample]]:
    return list(islice(order, number))


@settings(deadline=None)
@given(
    counts=some_counts,
    seed=seeds,
    num_lanes=st.sampled_from([1, 2, 4, 8]),
    part=st.integers(1, 5),
    shards_per_block=st.integers(1, 4),
)
def test_batches_are_those_of_the_slow_twin(
    counts: list[int], seed: int, num_lanes: int, part: int, shards_per_block: int
) -> None:
    order = LaneOrder(
        counts,
        seed=seed,
        batch_size=num_lanes * part,
        num_lanes=num_lanes,
        shards_per_block=shards_per_block,
    )
    num_epochs = -(-6 * part // (sum(counts) // num_lanes))
    rows: list[list[tuple[int, int]]] = [[] for _ in range(num_lanes)]
    for epoch in range(num_epochs):
        lanes = oracle.lanes_of_epoch(
            counts, seed=seed, epoch=epoch, num_lanes=num_lanes, shards_per_block=shards_per_block
        )
        for row, lane in zip(rows, lanes, strict=True):
            row += [(epoch, example) for example in lane]
    for step, samples in enumerate(batches(order, 6)):
        expected = oracle.batch(rows, step, num_lanes * part)
        assert [sample[:2] for sample in samples] == expected


@settings(deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(0, 60), min_size=3, max_size=9).filter(lambda c: sum(c) >= 64),
    seed=seeds,
    part=st.integers(1, 3),
    step=st.integers(0, 10**6),
    weights=st.sampled_from([None, [0.7, 0.3]]),
)
def test_any_number_of_processes_reads_the_same_batch(
    counts: list[int], seed: int, part: int, step: int, weights: list[float] | None
) -> None:
    given_counts = counts if weights is None else [counts, counts[::-1]]

    def together(num_processes: int) -> list[Sample]:
        orders = (
            LaneOrder(
                given_counts,
                seed=seed,
                batch_size=64 * part,
                weights=weights,
                start_step=step,
                share=Share(rank, num_processes),
            )
            for rank in range(num_processes)
        )
        return [sample for order in orders for sample in next(iter(order))]

    assert together(1) == together(2) == together(4) == together(8) == together(64)


@settings(deadline=None, max_examples=30)
@given(counts=some_counts, seed=seeds, num_lanes=st.sampled_from([1, 2, 4, 8]))
def test_an_epoch_holds_each_example_once_but_the_few_left_over(
    counts: list[int], seed: int, num_lanes: int
) -> None:
    total = sum(counts)
    length = total // num_lanes
    order = LaneOrder(counts, seed=seed, batch_size=num_lanes, num_lanes=num_lanes)
    for epoch in range(3):
        used = [sample for step in range(length) for sample in order.samples(epoch * length + step)]
        assert {sample.epoch for sample in used} == {epoch}
        examples = [sample.example_index for sample in used]
        assert len(set(examples)) == len(examples) == total - total % num_lanes
        assert set(examples) <= set(range(total))


@pytest.mark.parametrize("counts", [[67], [30, 37], [10] * 6 + [7]])
def test_other_examples_are_left_over_in_another_epoch(counts: list[int]) -> None:
    order = LaneOrder(counts, seed=0, batch_size=8)
    left_over = set()
    for epoch in range(60):
        steps = range(epoch * 8, epoch * 8 + 8)
        used = {sample.example_index for step in steps for sample in order.samples(step)}
        left_over |= set(range(67)) - used
    assert len(left_over) > 50


@settings(deadline=None, max_examples=40)
@given(counts=some_counts, seed=seeds, step=st.integers(0, 40), mixes=st.booleans())
def test_a_resumed_order_goes_on_as_the_first(
    counts: list[int], seed: int, step: int, mixes: bool
) -> None:
    counts_, weights = ([counts, counts], [3.0, 1.0]) if mixes else (counts, None)

    def order(start_step: int) -> LaneOrder:
        return LaneOrder(
            counts_,
            seed=seed,
            batch_size=12,
            num_lanes=4,
            weights=weights,
            start_step=start_step,
        )

    assert batches(order(0), step + 3)[step:] == batches(order(step), 3)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, part=st.integers(1, 4), num_lanes=st.sampled_from([1, 4, 8]))
def test_mixed_sources_each_give_every_example_once_an_epoch(
    seed: int, part: int, num_lanes: int
) -> None:
    counts = [[20, 13, 0, 9], [15, 11]]
    order = LaneOrder(
        counts, seed=seed, batch_size=num_lanes * part, num_lanes=num_lanes, weights=[2, 1]
    )
    samples = [sample for step in range(300 // part) for sample in order.samples(step)]
    assert len(set(samples)) == len(samples)
    for first, size in ((0, 42), (42, 26)):
        own = [one for one in samples if first <= one.example_index < first + size]
        whole_epoch = [one for one in own if one.epoch == 1]
        assert len(whole_epoch) == size - size % num_lanes


@settings(deadline=None, max_examples=40)
@given(
    counts=some_counts,
    seed=seeds,
    first=st.integers(0, 60),
    number=st.integers(1, 30),
    shards_per_block=st.integers(1, 3),
    rank=st.integers(0, 1),
    mixes=st.booleans(),
)
def test_shards_needed_are_those_of_the_examples(
    counts: list[int],
    seed: int,
    first: int,
    number: int,
    shards_per_block: int,
    rank: int,
    mixes: bool,
) -> None:
    order = LaneOrder(
        [counts, counts] if mixes else counts,
        seed=seed,
        batch_size=8,
        num_lanes=4,
        shards_per_block=shards_per_block,
        weights=[3.0, 1.0] if mixes else None,
        share=Share(rank, 2),
    )
    ends = np.cumsum(counts * 2)
    used = dict.fromkeys(
        int(np.searchsorted(ends, sample.example_index, side="right"))
        for step in range(first, first + number)
        for sample in order.samples(step)
    )
    needed = order.shards_needed(first, number)
    assert len(set(needed)) == len(needed)
    flat = [source * len(counts) + shard for source, shard in needed]
    assert set(used) <= set(flat)
    if shards_per_block == 1:
        assert set(used) == set(flat)


def test_shards_needed_come_in_the_order_of_their_first_use() -> None:
    order = LaneOrder([50] * 40, seed=3, batch_size=4, num_lanes=4)
    firsts: dict[int, int] = {}
    for step in range(700):
        for sample in order.samples(step):
            firsts.setdefault(sample.example_index // 50, step)
    needed = order.shards_needed(0, 700)
    assert needed[0] in [SourceShard(0, shard) for shard, step in firsts.items() if step == 0]
    steps = [firsts[shard] for _, shard in needed]
    assert steps == sorted(steps)


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    order = LaneOrder([3, 4], seed=0, batch_size=20, num_lanes=2)
    assert {sample.epoch for sample in order.samples(0)} == {0, 1, 2, 3}
    row = [sample for samples in batches(order, 3) for sample in samples]
    assert len(set(row)) == 60


def test_fewer_examples_than_lanes_are_refused() -> None:
    with pytest.raises(DataError, match=r"there are 3 examples in the shards, fewer than the 4"):
        LaneOrder([1, 0, 2], seed=0, batch_size=4)


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(256, 64), (4096, 64), (100, 50), (7, 7), (131, 1), (768, 64)]
)
def test_lanes_are_the_largest_divisor_of_the_batch_up_to_64(
    batch_size: int, expected: int
) -> None:
    assert default_num_lanes(batch_size) == expected


def test_processes_that_lanes_cannot_be_split_over_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        LaneOrder([900], seed=0, batch_size=100, share=Share(0, 4))
    assert str(caught.value) == (
        "50 lanes cannot be split equally over 4 processes: start 1, 2, 5, 10, 25, 50 processes, "
        "or begin a new run with --data.num_lanes 4, 20, 100, or another batch size"
    )


def test_lanes_that_do_not_divide_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_lanes 5 does not divide the batch size 12: choose"):
        LaneOrder([900], seed=0, batch_size=12, num_lanes=5)


def test_neighbors_in_a_lane_are_far_apart_in_their_shard() -> None:
    order = LaneOrder([10_000] * 20, seed=0, batch_size=4, num_lanes=4)
    lane = np.array([order.samples(step)[1].example_index for step in range(3000)])
    assert np.mean(np.abs(np.diff(lane)) < 100) < 0.1


def test_memory_does_not_grow_with_the_number_of_examples() -> None:
    tracemalloc.start()
    counts = np.full(40_000, 10_000)  # 400 M examples
    order = LaneOrder(counts, seed=0, batch_size=4096, share=Share(3, 64))
    for step in (0, 10**5, 10**7):
        assert len(order.samples(step)) == 64
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
