"""Which examples a shard holds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from virtex.pack.shard_plan import PIECE, Piece, ShardPlan


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**40))
def test_the_shards_hold_each_example_once_in_almost_equal_numbers(num, num_shards, seed):
    plan = ShardPlan(num, min(num, num_shards), seed)
    shards = range(plan.num_shards)
    pieces = list(plan.pieces(shards))
    assert sorted(index for piece in pieces for index in plan.indices(piece)) == list(range(num))
    sizes = [plan.size(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(0 < piece.stop - piece.start <= PIECE for piece in pieces)


@given(st.integers(1, 300), st.integers(1, 40))
def test_keys_are_unique_equally_long_and_in_order(num, num_shards):
    plan = ShardPlan(num, min(num, num_shards), 0)
    keys = [plan.key(s, k) for s in range(plan.num_shards) for k in range(plan.size(s))]
    assert keys == sorted(set(keys))
    assert len({len(key) for key in keys}) == 1
    assert ShardPlan(10_000, 1, 0).key(0, 9_999) == "000009999"


def test_millions_of_examples_keep_their_keys_apart():
    plan = ShardPlan(2_000_000_000, 150_000, 0)
    assert plan.name(7) == "000007"
    assert plan.key(149_999, plan.size(149_999) - 1) == "14999913333"


def test_the_order_depends_on_the_seed_alone():
    one, other = (ShardPlan(100, 3, seed).indices(Piece(1, 0, 30)) for seed in (0, 1))
    assert one == ShardPlan(100, 3, 0).indices(Piece(1, 0, 30)) != other
    spread = np.array([ShardPlan(10_000, 10, 0).indices(Piece(s, 0, 1000)) for s in range(10)])
    assert spread.mean(1).std() < 300  # each shard has examples of all the source
