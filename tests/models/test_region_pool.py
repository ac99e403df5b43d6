"""Grids of features that are pooled from regions."""

import pytest
import torch
from torch import Tensor

from virtex.models import region_pool
from virtex.models.region_pool import RegionPool, in_rows

BOXES = [
    torch.tensor([[20.0, 40, 62, 89], [8.5, 11.25, 30, 31]]),
    torch.zeros(0, 4),
    torch.tensor([[16.0, 16, 400, 200]]),
]
"""Of three images of 512 pixels; the last one fits a coarse map."""


def coordinates(stride: int) -> Tensor:
    """A map (3, 3, h, w) of x and y in pixels at the center of each cell, and of the image."""
    center = (torch.arange(512 // stride) + 0.5) * stride
    y, x = torch.meshgrid(center, center, indexing="ij")
    return torch.stack([torch.stack([x, y, torch.full_like(x, index)]) for index in range(3)])


@pytest.mark.parametrize("strides", [(16,), (4, 8, 16, 32)])
def test_a_cell_is_read_at_its_place_in_the_image(strides):
    pool = RegionPool({str(stride): stride for stride in strides}, 7)
    pooled = pool({str(stride): coordinates(stride) for stride in strides}, in_rows(BOXES))
    assert pooled.shape == (3, 3, 7, 7)
    x1, y1, x2, y2 = torch.cat(BOXES).T[..., None]  # (3, 1) each
    cells = (torch.arange(7) + 0.5) / 7
    expected_x, expected_y = x1 + cells * (x2 - x1), y1 + cells * (y2 - y1)
    torch.testing.assert_close(pooled[:, 0], expected_x[:, None].expand(3, 7, 7))
    torch.testing.assert_close(pooled[:, 1], expected_y[:, :, None].expand(3, 7, 7))
    assert pooled[:, 2, 0, 0].tolist() == [0, 0, 2]


def test_a_cell_is_the_mean_over_all_that_it_covers():
    stripes = (torch.arange(42) % 6 == 0).float().expand(1, 1, 42, 42)
    pooled = RegionPool({"4": 4}, 7)({"4": stripes}, torch.tensor([[0.0, 0, 0, 168, 168]]))
    torch.testing.assert_close(pooled, torch.full((1, 1, 7, 7), 1 / 6))


def test_a_region_without_an_area_is_pooled_without_a_fault():
    maps = {str(stride): coordinates(stride) for stride in (4, 8)}
    boxes = [torch.tensor([[5.0, 5, 5, 5]]), torch.zeros(0, 4), torch.zeros(0, 4)]
    assert RegionPool({"4": 4, "8": 8}, 7)(maps, in_rows(boxes)).isfinite().all()


def test_a_large_region_is_pooled_from_a_coarse_map():
    maps = {str(stride): torch.full((1, 1, 512 // stride, 512 // stride), float(stride))
            for stride in (4, 8, 16, 32)}  # fmt: skip
    boxes = torch.tensor([[0.0, 0, 0, side, side] for side in (9, 111, 112, 223, 224, 448, 500)])
    read = RegionPool({name: int(name) for name in maps}, 7)(maps, boxes)
    assert read[:, 0, 3, 3].tolist() == [4, 4, 8, 8, 16, 32, 32]
    coarse = {name: maps[name] for name in ("16", "32")}
    read = RegionPool({name: int(name) for name in coarse}, 7)(coarse, boxes)
    assert read[:, 0, 3, 3].tolist() == [16, 16, 16, 16, 16, 32, 32]


@pytest.mark.parametrize("deterministic", [False, True])
def test_shapes_that_do_not_depend_on_levels_give_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    strides = {str(stride): stride for stride in (4, 8, 16, 32)}
    maps = {
        name: torch.randn(3, 2, 512 // stride, 512 // stride, generator=generator)
        for name, stride in strides.items()
    }
    boxes = in_rows([*BOXES[:2], torch.cat([BOXES[2], torch.zeros(1, 4)])])
    pooled = []
    is_asked = torch.are_deterministic_algorithms_enabled
    for may_read in (True, False):
        monkeypatch.setattr(region_pool, "may_read", lambda _, answer=may_read: answer)
        inputs = {name: features.clone().requires_grad_() for name, features in maps.items()}
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
        grids = RegionPool(strides, 7)(inputs, boxes)
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", is_asked)
        grids.square().sum().backward()
        pooled.append([grids, *(features.grad for features in inputs.values())])
    assert all(map(torch.equal, *pooled))
