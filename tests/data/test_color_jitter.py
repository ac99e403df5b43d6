"""Color changes against torchvision's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms.v2 import ColorJitter, functional

from virtex.data.color_jitter import (
    Levels,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    jitter_colors,
)

TOLERANCE = 2
"""Levels; torchvision truncates, so its results are lower by half a level."""
PIXELS = hnp.arrays(np.uint8, (3, 5, 7), elements=st.integers(0, 255))
ADJUSTMENTS = {
    "brightness": (adjust_brightness, functional.adjust_brightness),
    "contrast": (adjust_contrast, functional.adjust_contrast),
    "saturation": (adjust_saturation, functional.adjust_saturation),
}
AMOUNTS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def adjusted(
    adjust: Callable[[Levels, float], Levels], pixels: np.ndarray, amount: float
) -> np.ndarray:
    levels = adjust(pixels.reshape(3, -1).astype(np.uint16), amount)
    assert levels.dtype == np.uint16
    assert levels.max() <= 255
    return levels.reshape(pixels.shape).astype(int)


@settings(deadline=None, max_examples=200)
@given(PIXELS, st.sampled_from(sorted(ADJUSTMENTS)), st.floats(0, 2))
def test_adjustments_equal_torchvisions(pixels: np.ndarray, name: str, factor: float) -> None:
    ours, theirs = ADJUSTMENTS[name]
    expected = theirs(torch.from_numpy(pixels), factor).numpy()
    assert np.abs(adjusted(ours, pixels, factor) - expected).max() <= TOLERANCE


@settings(deadline=None, max_examples=200)
@given(PIXELS, st.floats(-0.5, 0.5))
def test_hue_shifts_equal_torchvisions(pixels: np.ndarray, shift: float) -> None:
    expected = functional.adjust_hue(torch.from_numpy(pixels), shift).numpy()
    assert np.abs(adjusted(adjust_hue, pixels, shift) - expected).max() <= TOLERANCE


def test_hue_shifts_of_primary_and_mixed_colors_equal_torchvisions() -> None:
    corners = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    pixels = np.stack(np.meshgrid(corners, corners, corners)).reshape(3, 12, 18)
    for shift in np.linspace(-0.5, 0.5, 41).tolist():
        expected = functional.adjust_hue(torch.from_numpy(pixels), shift).numpy()
        assert np.abs(adjusted(adjust_hue, pixels, shift) - expected).max() <= TOLERANCE


@given(PIXELS, st.sampled_from(sorted(ADJUSTMENTS)))
def test_a_factor_of_one_changes_nothing(pixels: np.ndarray, name: str) -> None:
    assert np.array_equal(adjusted(ADJUSTMENTS[name][0], pixels, 1.0), pixels)


@given(PIXELS)
def test_a_hue_shift_of_zero_changes_nothing(pixels: np.ndarray) -> None:
    assert np.array_equal(adjusted(adjust_hue, pixels, 0.0), pixels)


def test_jitter_applies_one_of_torchvisions_orders_of_the_four_changes() -> None:
    """The mean gray over many draws agrees with torchvision's ColorJitter."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 8, 8)).astype(np.uint8)
    ours = np.stack([jitter_colors(pixels, rng, **AMOUNTS) for _ in range(3000)])
    torch.manual_seed(0)
    jitter = ColorJitter(**AMOUNTS)
    theirs = np.stack([jitter(torch.from_numpy(pixels)).numpy() for _ in range(3000)])
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 5
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 5


def test_each_change_comes_first_equally_often() -> None:
    """Levels 0 and 200 end above 127 both only if contrast comes before brightness, and then for
    3.8 % of the factors: 1 / 4 of the integral of 1 - 1.275 / f over f from 1.275 to 2."""
    pixels = np.zeros((3, 1, 2), np.uint8)
    pixels[:, 0, 1] = 200
    rng = np.random.default_rng(1)
    only_two = {"brightness": 1.0, "contrast": 1.0, "saturation": 0.0, "hue": 0.0}
    results = np.stack([jitter_colors(pixels, rng, **only_two) for _ in range(4000)])
    share = (results.min((1, 2, 3)) > 127).mean()
    assert 0.6 * 0.038 / 2 < share < 1.4 * 0.038 / 2


def test_jitter_follows_its_generator_and_leaves_its_input_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 6)).astype(np.uint8)
    before = pixels.copy()
    first, again, other = (
        jitter_colors(pixels, np.random.default_rng(seed), **AMOUNTS) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_of_zero_change_nothing(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 6)).astype(np.uint8)
    none = dict.fromkeys(AMOUNTS, 0.0)
    rng = np.random.default_rng(3)
    assert np.array_equal(jitter_colors(pixels, rng, **none), pixels)
    changed = jitter_colors(pixels, rng, **{**none, name: AMOUNTS[name]})
    assert not np.array_equal(changed, pixels)
