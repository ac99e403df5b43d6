"""The loss of boxes."""

import pytest
import torch

from virtex.models.region_outputs import box_loss


def test_the_loss_of_boxes_is_the_absolute_error_of_the_objects_class_per_region():
    deltas = torch.zeros(4, 3, 4)
    deltas[0, 2] = torch.tensor([0.05, -1, 0, 3])  # 0.05 would be squared below 1/9
    deltas[1, 1] = torch.tensor([0.0, 0, 0, 0.5])
    deltas[2] = 9.0  # of the background
    offsets, labels = torch.zeros(4, 4), torch.tensor([2, 1, 0, 2])
    loss = box_loss(deltas.flatten(1), offsets, labels)
    assert loss.item() == pytest.approx((0.05 + 1 + 3 + 0.5) / 4)
