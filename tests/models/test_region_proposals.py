"""Anchors, and the losses of proposals."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from virtex.models.region_proposals import ANCHOR_RATIOS, Anchors, RegionProposals
from virtex.models.region_targets import Targets

SIZES = ((32, 40), (64, 80), (128, 160))
STRIDES = (4, 8, 16)


def anchors_of(dtype: torch.dtype = torch.float32) -> tuple[list, ImageList, list]:
    """Our anchors of two images of 64 by 96 pixels, the images, and their maps."""
    maps = [torch.zeros(2, 1, 64 // stride, 96 // stride, dtype=dtype) for stride in STRIDES]
    listed = ImageList(torch.zeros(2, 3, 64, 96), [(64, 96)] * 2)
    return Anchors(SIZES, STRIDES)(listed, maps), listed, maps


def test_anchors_have_the_exact_area_and_shape():
    (anchors, _), _, _ = anchors_of()
    widths, heights = (anchors[:6, 2:] - anchors[:6, :2]).T
    torch.testing.assert_close(widths * heights, torch.tensor([32.0**2, 40.0**2]).repeat(3))
    ratios = torch.tensor(ANCHOR_RATIOS).repeat_interleave(2)
    torch.testing.assert_close(heights / widths, ratios)
    assert widths[0].item() == pytest.approx(32 * math.sqrt(2))


def test_anchors_are_torchvisions_before_they_are_rounded():
    ours, listed, maps = anchors_of()
    theirs = AnchorGenerator(SIZES, (ANCHOR_RATIOS,) * 3)(listed, maps)
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert 0 < (one - other).abs().max() <= 0.5


def test_anchors_are_float32_for_maps_of_less_precision():
    ours, _, _ = anchors_of(torch.bfloat16)
    assert ours[0].dtype == torch.float32
    assert torch.equal(ours[0], anchors_of()[0][0])


def test_anchors_lie_a_stride_apart_in_an_image_of_odd_size():
    maps = [torch.zeros(1, 1, 4, 4)]  # of an image of 100 pixels, at stride 32
    (anchors,) = Anchors([[32]], [32])(ImageList(torch.zeros(1, 3, 100, 100), [(100, 100)]), maps)
    centers = (anchors[1::3, :2] + anchors[1::3, 2:]) / 2
    assert centers[:5].tolist() == [[0, 0], [32, 0], [64, 0], [96, 0], [0, 32]]


def proposals(num_anchors: int) -> RegionProposals:
    counts = {"training": 10, "testing": 10}
    return RegionProposals(
        Anchors([[32]], [16]), torch.nn.Identity(), 0.7, 0.3, num_anchors, 0.5, counts, counts, 0.7
    )


def anchors_in_a_row(number: int) -> torch.Tensor:
    """Anchors (A, 4) of 10 pixels, of which none overlap."""
    left = torch.arange(number) * 20.0
    return torch.stack([left, left * 0, left + 10, left * 0 + 10], dim=1)


def test_losses_are_divided_by_the_anchors_that_are_to_be_sampled():
    anchors = anchors_in_a_row(4)
    between = anchors[3] + torch.tensor([0, 0, 0, 10])  # an IoU of 1/2 is neither
    boxes = torch.stack([anchors[0], between])[None]
    targets = Targets(boxes.repeat(2, 1, 1), torch.tensor([[1, 3], [0, 0]]), torch.tensor([5, 6]))
    logits = torch.tensor([[2.0, -1, 0.5, 9], [1, -3, 2, 4]])
    deltas = torch.zeros(2, 4, 4)
    deltas[0, 0] = torch.tensor([0.05, -2, 0, 1])
    deltas[0, 1:], deltas[1] = 7.0, 7.0
    losses = proposals(16).losses(logits, deltas, anchors, targets)
    terms = [logsigmoid(logits[0, [0, 3]]), logsigmoid(-logits[0, 1:3]), logsigmoid(-logits[1])]
    assert losses["objectness"].item() == pytest.approx(-sum(map(float, torch.cat(terms))) / 32)
    last = 7 + 7 + 7 + (7 - math.log(2))  # the second object has no better anchor
    middle = -0.5  # its center lies half an anchor lower
    assert losses["proposal_box"].item() == pytest.approx((0.05 + 2 + 1 + last + middle) / 32)


def test_as_many_anchors_are_sampled_as_requested():
    anchors = anchors_in_a_row(100)
    targets = Targets(anchors[None, :50] + 0.5, torch.ones(1, 50).long(), torch.tensor([3]))
    logits, deltas = torch.zeros(1, 100), torch.zeros(1, 100, 4)
    losses = proposals(16).losses(logits, deltas, anchors, targets)
    assert losses["objectness"].item() == pytest.approx(math.log(2))
    assert losses["proposal_box"].item() == pytest.approx(8 * 2 * 0.05 / 16, rel=1e-4)
