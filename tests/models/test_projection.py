"""Projections, the momentum copy, the queue and the memory bank."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.oracles.memories import first_in_first_out, moving_averages
from virtex.models.projection import (
    MemoryBank,
    Projection,
    Queue,
    momentum_copy,
    similarities,
    update_momentum_copy,
)


def numbered(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 2)


@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=6))
def test_the_queue_is_first_in_first_out_whatever_the_sizes(size: int, counts: list[int]) -> None:
    queue, pushes, number = Queue(size, 2), [], size
    queue.keys.copy_(numbered(list(range(size))))
    for count in counts:
        pushes.append(list(range(number, number + count)))
        queue.push(numbered(pushes[-1]))
        number += count
    oldest_first = queue.keys.roll(-int(queue.position), 0)[:, 0]
    assert oldest_first.int().tolist() == first_in_first_out(range(size), pushes)


def test_memories_begin_as_random_directions_that_the_seed_decides() -> None:
    def memories() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        return Queue(50, 8).keys, MemoryBank(50, 8, momentum=0.5).entries

    for first, again in zip(memories(), memories(), strict=True):
        assert torch.equal(first, again)
        torch.testing.assert_close(first.norm(dim=1), torch.ones(50))
        assert first.mean(0).norm() < 0.5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_bank_keeps_moving_averages_as_its_twin(index: list[int], momentum: float) -> None:
    torch.manual_seed(0)
    bank = MemoryBank(6, 3, momentum=momentum)
    features = torch.nn.functional.normalize(torch.randn(len(index), 3), dim=1)
    expected = moving_averages(bank.entries.tolist(), index, features.tolist(), momentum)
    bank.update(torch.tensor(index), features)
    torch.testing.assert_close(bank.entries, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_draw_takes_different_entries_and_no_more_than_there_are() -> None:
    bank = MemoryBank(20, 2, momentum=0.5)
    for number in (1, 7, 20, 99):
        drawn = bank.draw(number).tolist()
        assert len(drawn) == len(set(drawn)) == min(number, 20)
    assert {entry for _ in range(200) for entry in bank.draw(2).tolist()} == set(range(20))


@pytest.mark.parametrize(("mlp", "num_layers"), [(False, 1), (True, 2)])
def test_a_projection_has_its_layers_and_gives_unit_length(mlp: bool, num_layers: int) -> None:
    projection = Projection(6, 4, mlp=mlp)
    assert sum(isinstance(layer, nn.Linear) for layer in projection.modules()) == num_layers
    projected = projection(torch.randn(5, 6))
    assert projected.shape == (5, 4)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(5))


def test_a_copy_follows_parameters_and_no_buffers() -> None:
    fast = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    slow = momentum_copy(fast)
    before = {name: value.clone() for name, value in slow.state_dict().items()}
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(torch.randn_like(parameter))
    fast(torch.randn(8, 3))  # moves the statistics
    update_momentum_copy(slow, fast, momentum=0.9)
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    for name, parameter in fast.named_parameters():
        expected = 0.9 * before[name] + 0.1 * parameter.detach()
        torch.testing.assert_close(slow.get_parameter(name).data, expected)
    assert torch.equal(slow.get_buffer("1.running_mean"), before["1.running_mean"])


def test_similarities_stay_exact_under_autocast() -> None:
    features, entries = torch.randn(4, 16), torch.randn(9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = similarities(features, entries)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, similarities(features, entries))
