"""Boxes as location tokens, and back."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from virtex.data.location_tokens import LocationTokens

SIDES = st.integers(1, 8192)


@given(SIDES, st.integers(2, 10_000), st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_a_box_comes_back_within_half_a_bin(size: int, num_bins: int, corners: list[float]) -> None:
    locations = LocationTokens(300, num_bins, size)
    boxes = np.array([corners], np.float32) * size
    tokens = locations.encode(boxes)
    assert tokens.dtype == torch.int64
    assert 300 <= tokens.min() <= tokens.max() < 300 + num_bins
    error = np.abs(locations.decode(tokens) - boxes)
    assert error.max() <= 0.5 * size / num_bins + 1e-6 * size


def test_a_side_is_cut_into_equal_bins_and_its_end_belongs_to_the_last() -> None:
    boxes = np.array([[0, 15.9, 16, 64], [31.9, 32, 63.9, 48]], np.float32)
    tokens = LocationTokens(10, 4, 64).encode(boxes)
    assert tokens.tolist() == [[10, 10, 11, 13], [11, 12, 13, 13]]
