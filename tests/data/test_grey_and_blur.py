"""Colour dropped, detail softened."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from virtex.data.grey_and_blur import blur, drop_colors


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width)).astype(np.uint8)


def test_dropping_colours_is_torchvisions() -> None:
    grey = drop_colors(picture(20, 30))
    expected = functional.rgb_to_grayscale(torch.from_numpy(picture(20, 30)), 3).numpy()
    assert np.abs(grey.astype(int) - expected).max() <= 1
    assert np.array_equal(grey[0], grey[1])
    assert np.array_equal(grey[0], grey[2])


@pytest.mark.parametrize("sigma", [0.03, 0.3, 0.57, 1.0, 2.0])
def test_blurring_is_torchvisions(sigma: float) -> None:
    """Within two levels, away from the edges, beyond which torchvision mirrors."""
    pixels = picture(60, 70)
    size = 2 * int(np.ceil(4 * sigma)) + 1
    image = torch.from_numpy(pixels).double()
    expected = functional.gaussian_blur(image, [size, size], [sigma, sigma]).numpy()
    difference = np.abs(blur(pixels, sigma=sigma) - expected.round())
    assert difference[:, 8:-8, 8:-8].max() <= 2


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_blurring_leaves_a_plain_picture_alone(level: int) -> None:
    for sigma in (0.4, 1.3, 2.0):
        plain = np.full((3, 9, 5), level, np.uint8)
        assert np.array_equal(blur(plain, sigma=sigma), plain)


def test_blurring_takes_pictures_smaller_than_its_reach() -> None:
    assert blur(picture(1, 2), sigma=2).shape == (3, 1, 2)
