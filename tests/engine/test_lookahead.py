import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.optim import SlowLookahead
from virtex.engine.lookahead import Lookahead
from virtex.errors import CheckpointError


def make_weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((3, 2), (4,), ())]


def drift(weights: list[torch.Tensor], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for weight in weights:
        weight += torch.randn(weight.shape, generator=generator)


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 6), alpha=st.floats(0.1, 1.0), num_steps=st.integers(0, 20))
def test_lookahead_equals_its_slow_twin(k: int, alpha: float, num_steps: int) -> None:
    fast, twin = make_weights(), make_weights()
    lookahead = Lookahead(fast, num_steps=k, alpha=alpha)
    slow = SlowLookahead(twin, k=k, alpha=alpha)
    for step in range(num_steps):
        drift(fast, step)
        drift(twin, step)
        lookahead.step()
        slow.step()
    for actual, expected in zip(fast, twin, strict=True):
        torch.testing.assert_close(actual, expected)


def test_slow_weights_start_as_a_copy_of_the_model() -> None:
    weights = make_weights()
    start = copy.deepcopy(weights)
    lookahead = Lookahead(weights, num_steps=1, alpha=0.25)
    weights[0] += 4.0
    lookahead.step()
    torch.testing.assert_close(weights[0], start[0] + 1.0)


@pytest.mark.parametrize("cut", [0, 3, 5, 7])
def test_a_restored_lookahead_continues_bit_for_bit(cut: int) -> None:
    whole = make_weights()
    lookahead = Lookahead(whole, num_steps=5, alpha=0.5)
    for step in range(12):
        if step == cut:
            parts = copy.deepcopy(whole)
            saved = copy.deepcopy(lookahead.state_dict())
        drift(whole, step)
        lookahead.step()
    resumed = Lookahead(parts, num_steps=5, alpha=0.5)
    resumed.load_state_dict(saved)
    for step in range(cut, 12):
        drift(parts, step)
        resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 4), taken=st.lists(st.booleans(), max_size=20))
def test_steps_that_the_loss_scaler_skips_do_not_count(k: int, taken: list[bool]) -> None:
    weights, twin = make_weights(), make_weights()
    lookahead = Lookahead(weights, num_steps=k, alpha=0.3)
    counted = Lookahead(twin, num_steps=k, alpha=0.3)
    for step, is_taken in enumerate(taken):
        if is_taken:
            drift(weights, step)
            drift(twin, step)
            counted.step()
        lookahead.step(torch.tensor(is_taken))
        assert lookahead.state_dict()["counter"] == counted.counter
        for actual, expected in zip(weights, twin, strict=True):
            torch.testing.assert_close(actual, expected)


def test_slow_weights_of_another_model_are_refused() -> None:
    saved = Lookahead(make_weights()[:2], num_steps=5, alpha=0.5).state_dict()
    with pytest.raises(CheckpointError, match="Lookahead"):
        Lookahead(make_weights(), num_steps=5, alpha=0.5).load_state_dict(saved)
