import pytest
import torch
from torch import nn

from virtex.errors import CheckpointError
from virtex.models.state_dict import load_strictly, state_digest


def test_counters_of_batch_norm_may_be_missing_and_nothing_else() -> None:
    module = nn.BatchNorm1d(3)
    state = {"weight": torch.rand(3), "bias": torch.rand(3), "running_mean": torch.rand(3)}
    load_strictly(module, {**state, "running_var": torch.ones(3)}, subject="file")
    assert torch.equal(module.weight, state["weight"])
    with pytest.raises(CheckpointError, match=r"file does not fit.*1 missing: running_var"):
        load_strictly(module, state, subject="file")


def test_every_difference_is_named_at_once() -> None:
    state = {"weight": torch.rand(2, 5), "extra": torch.rand(1)}
    differences = (
        r"1 missing: bias; 1 unexpected: extra; 1 of another shape: "
        r"weight is \(2, 5\), must be \(2, 3\)"
    )
    message = rf"^file does not fit .*: {differences}\. Take another\.$"
    with pytest.raises(CheckpointError, match=message):
        load_strictly(nn.Linear(3, 2), state, subject="file", remedy="Take another.")


def test_a_digest_changes_with_every_name_value_type_and_identity() -> None:
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}
    others = [
        {**state, "b": torch.tensor(4)},
        {**state, "a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {**state, "a": torch.tensor([[1.0, 2.0]])},
        {"c": state["a"], "b": state["b"]},
    ]
    digests = {state_digest(state), *map(state_digest, others), state_digest(state, b"identity")}
    assert len(digests) == 6
    assert state_digest(dict(reversed(state.items()))) == state_digest(state)
