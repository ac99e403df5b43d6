"""Which examples make up each batch."""

from collections import Counter
from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import loader as oracle
from virtex.data.order import TrainingOrder, permutation
from virtex.distributed import Share


@settings(deadline=None)
@given(
    num_examples=st.integers(1, 40),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 30),
    part=st.integers(1, 7),
    world_size=st.sampled_from([1, 2, 4]),
)
def test_the_ranks_parts_make_up_the_oracles_batch(
    num_examples: int, seed: int, step: int, part: int, world_size: int
) -> None:
    batch_size = part * world_size
    samples = [
        tuple(sample[:2])
        for rank in range(world_size)
        for sample in next(
            iter(
                TrainingOrder(
                    num_examples,
                    seed=seed,
                    batch_size=batch_size,
                    start_step=step,
                    share=Share(rank, world_size),
                )
            )
        )
    ]
    expected = oracle.training_samples(num_examples, seed=seed, step=step, batch_size=batch_size)
    assert samples == expected


@settings(deadline=None)
@given(num_examples=st.integers(1, 30), seed=st.integers(0, 100), batch_size=st.integers(1, 50))
def test_every_epoch_holds_every_example_once(
    num_examples: int, seed: int, batch_size: int
) -> None:
    order = TrainingOrder(num_examples, seed=seed, batch_size=batch_size)
    num_steps = -(-3 * num_examples // batch_size)
    row = [sample for samples in islice(order, num_steps) for sample in samples][: 3 * num_examples]
    assert sorted(row) == [(epoch, index, 0) for epoch in range(3) for index in range(num_examples)]


def test_seeds_give_different_orders() -> None:
    assert not np.array_equal(permutation(0, 0, 50), permutation(1, 0, 50))
    assert not np.array_equal(permutation(0, 0, 50), permutation(0, 1, 50))


def test_an_epochs_order_is_drawn_once() -> None:
    permutation.cache_clear()
    order = TrainingOrder(100, seed=0, batch_size=10)
    list(islice(order, 25))
    assert permutation.cache_info().misses == 3


REPEATS = np.array([1.0, 1.5, 2.25, 1.0])


def test_a_factor_is_how_often_an_example_comes_in_an_epoch() -> None:
    order = TrainingOrder(4, seed=3, batch_size=1, repeats=REPEATS)
    row = [samples[0] for samples in islice(order, 12_000)]
    last = row[-1].epoch
    counts = np.array(
        [
            Counter(sample.example_index for sample in row if sample.epoch < last)[i]
            for i in range(4)
        ]
    )
    np.testing.assert_allclose(counts / last, REPEATS, atol=0.03)
    per_epoch = Counter(sample[:2] for sample in row if sample.epoch < last)
    assert {per_epoch[epoch, 1] for epoch in range(last)} == {1, 2}
    assert {per_epoch[epoch, 2] for epoch in range(last)} == {2, 3}


def test_repetitions_within_an_epoch_are_numbered() -> None:
    order = TrainingOrder(4, seed=3, batch_size=1, repeats=REPEATS)
    row = [samples[0] for samples in islice(order, 300)]
    assert len(set(row)) == len(row)
    repetitions = sorted(sample.repetition for sample in row if sample[:2] == (0, 2))
    assert repetitions == list(range(len(repetitions)))


def test_repetitions_are_drawn_apart_from_what_happens_to_an_example() -> None:
    num_examples = 40
    order = TrainingOrder(num_examples, seed=3, batch_size=100, repeats=np.full(num_examples, 1.5))
    samples = [sample for batch in islice(order, 4) for sample in batch]
    for epoch in (0, 1):
        twice = {sample.example_index for sample in samples if sample[::2] == (epoch, 1)}
        for index in range(num_examples):
            draws = np.random.default_rng([3, epoch, index]).random(num_examples)
            assert twice != set(np.flatnonzero(draws < 0.5).tolist())


@settings(deadline=None)
@given(step=st.integers(0, 40), world_size=st.sampled_from([1, 2]))
def test_repetitions_do_not_depend_on_where_one_begins(step: int, world_size: int) -> None:
    whole = TrainingOrder(4, seed=3, batch_size=6, repeats=REPEATS)
    begun = [
        TrainingOrder(
            4, seed=3, batch_size=6, start_step=step, share=Share(rank, world_size),
            repeats=REPEATS,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    parts = [sample for order in begun for sample in next(iter(order))]
    assert parts == next(islice(whole, step, None))
