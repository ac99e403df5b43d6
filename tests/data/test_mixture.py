"""Sources mixed by weight in the slots of batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.mixture import PERIOD, Mixture
from virtex.errors import ConfigError

some_weights = st.lists(st.floats(0.05, 1), min_size=1, max_size=5)


@settings(deadline=None, max_examples=30)
@given(
    weights=some_weights,
    num_lanes=st.sampled_from([1, 2, 3, 5, 8, 12, 64, 100]),
    part=st.integers(1, 5),
)
def test_each_batch_is_within_one_and_each_period_exact(
    weights: list[float], num_lanes: int, part: int
) -> None:
    size = num_lanes * part
    mixture = Mixture(weights, batch_size=size, num_lanes=num_lanes)
    steps = range(5 * PERIOD, 6 * PERIOD)
    counts = np.array(
        [np.bincount(mixture.sources(step).ravel(), minlength=len(weights)) for step in steps]
    )
    exact = np.array(weights) / sum(weights) * size
    assert (np.abs(counts.sum(0) - PERIOD * exact) < 1).all()
    assert (np.abs(counts - counts.sum(0) / PERIOD) < 1).all()
    assert (counts.sum(1) == size).all()


@settings(deadline=None, max_examples=30)
@given(
    weights=some_weights,
    num_lanes=st.sampled_from([1, 2, 3, 8, 64]),
    part=st.integers(1, 4),
    step=st.integers(0, 300),
)
def test_uses_before_a_batch_are_those_of_all_earlier_ones(
    weights: list[float], num_lanes: int, part: int, step: int
) -> None:
    mixture = Mixture(weights, batch_size=num_lanes * part, num_lanes=num_lanes)
    counted = np.zeros((num_lanes, len(weights)), np.int64)
    for earlier in range(step):
        sources = mixture.sources(earlier)
        for source in range(len(weights)):
            counted[:, source] += (sources == source).sum(1)
    assert np.array_equal(mixture.uses_before(step), counted)


@pytest.mark.parametrize("num_lanes", [1, 8, 48, 64])
def test_lanes_use_each_source_alike(num_lanes: int) -> None:
    weights = [0.55, 0.3, 0.15]
    mixture = Mixture(weights, batch_size=num_lanes * 2, num_lanes=num_lanes)
    whole = mixture.uses_before(PERIOD * num_lanes)
    assert (whole == whole[0]).all()
    for step in range(0, PERIOD * num_lanes, 97):
        uses = mixture.uses_before(step)
        assert (np.abs(uses - 2 * step * np.array(weights)) <= 6).all()


def test_the_processes_shares_of_a_batch_are_mixed_alike() -> None:
    mixture = Mixture([0.7, 0.3], batch_size=64, num_lanes=64)
    for step in range(PERIOD):
        parts = mixture.sources(step).reshape(8, 8).sum(1)  # of 8 processes
        assert parts.max() - parts.min() <= 2


def test_a_weight_below_one_example_in_a_period_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight 0.0001 is less than one example in 512: give"):
        Mixture([1, 0.0001], batch_size=8, num_lanes=4)
