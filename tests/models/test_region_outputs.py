"""The loss of boxes."""

import pytest
import torch

from virtex.models.region_outputs import box_loss, repeated


def test_the_loss_of_boxes_is_the_absolute_error_of_the_objects_class():
    deltas = torch.zeros(5, 3, 4)
    deltas[0, 2] = torch.tensor([0.05, -1, 0, 3])  # 0.05 would be squared below 1/9
    deltas[1, 1] = torch.tensor([0.0, 0, 0, 0.5])
    deltas[2] = 9.0  # of the background
    deltas[4] = 8.0  # not learned
    offsets, labels = torch.zeros(5, 4), torch.tensor([2, 1, 0, 2, -100])
    loss = box_loss(deltas.flatten(1), offsets, labels)
    assert loss.item() == pytest.approx(0.05 + 1 + 3 + 0.5)


def test_places_without_a_region_repeat_those_that_have_one():
    indices = torch.tensor([[5, 3, 9, 0, 1], [4, 2, 8, 6, 7], [1, 2, 3, 4, 5]])
    number = torch.tensor([2, 5, 0])
    found = repeated(indices, torch.arange(5) < number[:, None])
    assert found.tolist() == [[5, 3, 5, 3, 5], [4, 2, 8, 6, 7], [1, 1, 1, 1, 1]]
