"""Greedy suppression of boxes, against torchvision's."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from virtex.models.suppression import BLOCK, ROUNDS, kept_boxes, kept_in_rounds

THRESHOLD = 0.7
CHAIN_STEP = 0.15
"""Step in sides of a box: a neighbor has an IoU of 0.74, the one after it 0.54."""


def random_boxes(number: int, *, groups: int = 3) -> tuple[Tensor, Tensor]:
    """Crowded boxes (G, N, 4) by descending score, and which are present."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(groups, number, 2, generator=generator) * 60
    sides = 20 + torch.rand(groups, number, 2, generator=generator) * 20
    present = torch.rand(groups, number, generator=generator) < 0.9
    return torch.cat([corners, corners + sides], dim=2), present


def chain(number: int) -> Tensor:
    """Boxes (1, N, 4) of which each one overlaps with the next alone."""
    steps = torch.arange(number) * 10 * CHAIN_STEP
    zeros = torch.zeros(number)
    return torch.stack([steps, zeros, steps + 10, zeros + 10], dim=1)[None]


def greedy(boxes: Tensor, present: Tensor) -> Tensor:
    """The kept boxes, one group after the other by torchvision."""
    kept = torch.zeros_like(present)
    for group, rows, own in zip(boxes, present, kept, strict=True):
        rows = rows.nonzero()[:, 0]
        own[rows[nms(group[rows], -rows.float(), THRESHOLD)]] = True
    return kept


def in_rounds(boxes: Tensor, present: Tensor, **options: int) -> Tensor:
    return kept_in_rounds(boxes, present, threshold=THRESHOLD, **options)


def everywhere(boxes: Tensor) -> Tensor:
    return torch.ones(boxes.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize("number", [1, 100, BLOCK, 3 * BLOCK + 5])
def test_crowded_boxes_are_suppressed_as_by_torchvision(number: int) -> None:
    boxes, present = random_boxes(number)
    expected = greedy(boxes, present)
    assert torch.equal(in_rounds(boxes, present), expected)
    assert torch.equal(kept_boxes(boxes, present, threshold=THRESHOLD), expected)


@pytest.mark.parametrize("number", [ROUNDS, ROUNDS - 1])
def test_a_chain_in_a_block_is_decided_up_to_its_rounds(number: int) -> None:
    boxes = chain(number)
    kept = in_rounds(boxes, everywhere(boxes))
    assert kept[0].tolist() == [place % 2 == 0 for place in range(number)]


def test_a_long_chain_is_decided_exactly_by_as_many_rounds_as_a_block_has_boxes() -> None:
    boxes = chain(150)
    kept = in_rounds(boxes, everywhere(boxes), block=64, rounds=64)
    assert torch.equal(kept, greedy(boxes, everywhere(boxes)))


def test_a_long_chain_is_decided_exactly_where_other_boxes_lie_between_it_in_score() -> None:
    chained, number = chain(300), 300 * BLOCK // ROUNDS
    apart = torch.arange(number) * 20.0
    boxes = torch.stack([apart, apart * 0 + 50, apart + 10, apart * 0 + 60], dim=1)
    boxes[:: number // 300][:300] = chained[0]
    kept = in_rounds(boxes[None], everywhere(boxes[None]))
    assert torch.equal(kept, greedy(boxes[None], everywhere(boxes[None])))


def test_undecided_boxes_of_a_block_are_out() -> None:
    boxes = chain(BLOCK)
    kept = in_rounds(boxes, everywhere(boxes))
    exact = greedy(boxes, everywhere(boxes))
    assert not (kept & ~exact).any()
    assert torch.equal(kept[:, :ROUNDS], exact[:, :ROUNDS])


def test_boxes_that_are_not_present_neither_stay_nor_suppress() -> None:
    boxes = torch.zeros(1, 3, 4) + torch.tensor([0.0, 0, 10, 10])
    boxes[:, 1] = 0
    present = torch.tensor([[False, False, True]])
    for kept in (in_rounds(boxes, present), kept_boxes(boxes, present, threshold=THRESHOLD)):
        assert torch.equal(kept, present)
