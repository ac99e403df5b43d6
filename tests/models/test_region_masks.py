"""What the mask head learns, and its masks placed in an image."""

import math

import numpy as np
import pytest
import torch

from tests.oracles.pasted_masks import slow_paste
from virtex.models.region_masks import mask_loss, mask_targets, paste_masks

SIZE = 40


def drawn_masks() -> torch.Tensor:
    """Two random masks (2, 40, 40)."""
    return (torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.5).byte()


def test_targets_in_a_box_of_whole_pixels_are_the_masks_own():
    masks = drawn_masks()
    boxes = torch.tensor([[10.0, 12, 18, 20], [0, 0, 8, 8], [30, 32, 38, 40]])
    targets = mask_targets(masks, boxes, torch.tensor([1, 0, 1]), num_cells=8)
    expected = [masks[1, 12:20, 10:18], masks[0, :8, :8], masks[1, 32:40, 30:38]]
    assert torch.equal(targets, torch.stack(expected).bool())


def test_a_cell_belongs_to_the_target_if_half_of_it_is_covered():
    masks = drawn_masks()
    boxes = torch.tensor([[4.0, 8, 20, 24]])
    (targets,) = mask_targets(masks, boxes, torch.tensor([0]), num_cells=8)
    blocks = masks[0, 8:24, 4:20].float().view(8, 2, 8, 2).mean((1, 3))
    assert torch.equal(targets, blocks >= 0.5)
    assert (blocks == 0.5).any()


def test_the_loss_is_the_mean_cross_entropy_of_the_cells_of_the_regions_class():
    masks = drawn_masks()
    wanted = masks[1, 12:20, 10:18].bool()
    targets = torch.stack([wanted, ~wanted])
    logits = torch.zeros(2, 3, 8, 8)
    logits[:, 2] = 1.5
    is_learned = torch.tensor([True, False])
    loss = mask_loss(logits, targets, labels=torch.tensor([2, 0]), is_learned=is_learned)
    covered = wanted.float().mean().item()
    expected = covered * math.log1p(math.exp(-1.5)) + (1 - covered) * math.log1p(math.exp(1.5))
    assert loss.item() == pytest.approx(expected)
    both = mask_loss(logits, targets, labels=torch.tensor([1, 1]), is_learned=~is_learned)
    assert both.item() == pytest.approx(math.log(2))


def test_a_mask_in_a_box_of_whole_pixels_is_placed_as_it_is():
    masks = torch.rand(2, 28, 28, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[3.0, 5, 31, 33], [0, 12, 28, 40]])
    pasted = paste_masks(masks, boxes, (SIZE, SIZE + 3))
    assert pasted.dtype == torch.bool
    assert torch.equal(pasted[0, 5:33, 3:31], masks[0] >= 0.5)
    assert torch.equal(pasted[1, 12:40, :28], masks[1] >= 0.5)
    assert pasted.sum() == (masks >= 0.5).sum()


def test_a_mask_in_a_box_of_parts_of_pixels_is_read_at_their_centers():
    masks = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([[3.3, 5.9, 31.4, 20.2], [0, 0, 40, 30], [39.2, 29.1, 39.9, 29.4]])
    pasted = paste_masks(masks, boxes, (30, SIZE))
    for mask, box, found in zip(masks, boxes, pasted, strict=True):
        expected = slow_paste(mask.double().numpy(), box.tolist(), 30, SIZE)
        close = np.abs(expected - 0.5) < 1e-5
        np.testing.assert_array_equal(found.numpy()[~close], (expected >= 0.5)[~close])
    assert pasted[:2].flatten(1).any(1).all()


def test_no_mask_and_a_box_at_the_border_are_placed_without_a_fault():
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
    boxes = torch.tensor([[6.0, 2, 6.0001, 4], [2, 2, 2, 2]])
    assert paste_masks(torch.ones(2, 28, 28), boxes, (5, 6)).shape == (2, 5, 6)
