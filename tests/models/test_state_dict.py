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


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int8), "1 of type int8, must be floating-point numbers"),
        (torch.ones(2, 3, dtype=torch.complex64), "1 of type complex64, must be floating-point"),
        (torch.ones(2, 3).to_sparse(), "1 sparse, must be floating-point numbers: weight"),
        (torch.ones(2, 3, device="meta"), "1 without values, must be floating-point"),
    ],
    ids=["int8", "complex", "sparse", "meta"],
)
def test_tensors_that_hold_no_weights_are_named(weight: torch.Tensor, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_strictly(nn.Linear(3, 2), {"weight": weight, "bias": torch.ones(2)}, subject="file")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_type_are_loaded(kind: torch.dtype) -> None:
    module = nn.Linear(3, 2)
    state = {"weight": torch.full((2, 3), 0.5, dtype=kind), "bias": torch.ones(2, dtype=kind)}
    load_strictly(module, state, subject="file")
    assert torch.equal(module.weight, torch.full((2, 3), 0.5))
