"""Gaussian blur and gray images against torchvision's."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from virtex.data.blur import blur
from virtex.data.color_jitter import to_gray


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width)).astype(np.uint8)


def test_gray_images_equal_torchvisions() -> None:
    gray = to_gray(image_of(20, 30))
    expected = functional.rgb_to_grayscale(torch.from_numpy(image_of(20, 30)), 3).numpy()
    assert np.abs(gray.astype(int) - expected).max() <= 1
    assert np.array_equal(gray[0], gray[1])
    assert np.array_equal(gray[0], gray[2])


@pytest.mark.parametrize("sigma", [0.03, 0.3, 0.57, 1.0, 2.0])
def test_blurred_images_equal_torchvisions(sigma: float) -> None:
    """Within two levels, away from the edges, beyond which torchvision mirrors."""
    pixels = image_of(60, 70)
    size = 2 * int(np.ceil(4 * sigma)) + 1
    image = torch.from_numpy(pixels).double()
    expected = functional.gaussian_blur(image, [size, size], [sigma, sigma]).numpy()
    difference = np.abs(blur(pixels, sigma=sigma) - expected.round())
    assert difference[:, 8:-8, 8:-8].max() <= 2


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_blur_leaves_a_plain_image_unchanged(level: int) -> None:
    for sigma in (0.4, 1.3, 2.0):
        plain = np.full((3, 9, 5), level, np.uint8)
        assert np.array_equal(blur(plain, sigma=sigma), plain)


def test_an_image_smaller_than_the_kernel_can_be_blurred() -> None:
    assert blur(image_of(1, 2), sigma=2).shape == (3, 1, 2)
