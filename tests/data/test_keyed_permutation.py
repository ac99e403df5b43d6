"""Permutations computed position by position."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from virtex.data.keyed_permutation import permuted


def permutation_of(size: int, key: int) -> NDArray[np.int64]:
    positions = np.arange(size, dtype=np.uint64)
    sizes, keys = np.full(size, size, np.uint64), np.full(size, key, np.uint64)
    return permuted(positions, sizes, keys).astype(np.int64)


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_each_position_goes_to_one_place(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permutation_of(size, key)), np.arange(size))


@settings(deadline=None)
@given(parts=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2**64 - 1)), max_size=8))
def test_permutations_of_several_sizes_are_computed_at_once(parts: list[tuple[int, int]]) -> None:
    alone = [permutation_of(size, key) for size, key in parts]
    sizes = [size for size, _ in parts]
    together = permuted(
        np.concatenate([np.arange(0), *map(np.arange, sizes)]).astype(np.uint64),
        np.repeat(np.array(sizes, np.uint64), sizes),
        np.repeat(np.array([key for _, key in parts], np.uint64), sizes),
    )
    assert together.tolist() == [place for one in alone for place in one.tolist()]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_of_a_few_are_equally_frequent(size: int) -> None:
    num_keys, num_orders = 24_000, [1, 1, 2, 6, 24][size]
    keys = np.random.default_rng(0).integers(2**64, size=num_keys, dtype=np.uint64).repeat(size)
    positions = np.tile(np.arange(size, dtype=np.uint64), num_keys)
    orders = permuted(positions, np.full(len(keys), size, np.uint64), keys).reshape(num_keys, size)
    counts = Counter(map(tuple, orders.tolist()))
    assert len(counts) == num_orders
    assert max(abs(count * num_orders / num_keys - 1) for count in counts.values()) < 0.15


def test_places_do_not_depend_on_positions() -> None:
    size = 10_000
    places = permutation_of(size, 5)
    other = permutation_of(size, 6)
    assert abs(np.corrcoef(np.arange(size), places)[0, 1]) < 0.03
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(places, other)[0, 1]) < 0.03
    assert np.count_nonzero(places == np.arange(size)) < 10  # one is expected


def test_each_place_is_equally_frequent() -> None:
    size, num_keys = 100, 20_000
    keys = np.random.default_rng(1).integers(2**64, size=num_keys, dtype=np.uint64)
    sizes = np.full(num_keys, size, np.uint64)
    for position in (0, 37, 99):
        places = permuted(np.full(num_keys, position, np.uint64), sizes, keys)
        counts = np.bincount(places.astype(np.int64), minlength=size)
        chi_square = ((counts - num_keys / size) ** 2 / (num_keys / size)).sum()
        assert chi_square < 160  # 99 degrees of freedom: above it once in 10,000
