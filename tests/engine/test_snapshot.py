"""Copies of the state of training."""

from pathlib import Path

import pytest
import torch

from tests.engine.test_resume import assert_identical
from tests.engine.toy import toy_batch, toy_task
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig
from virtex.engine.snapshot import Snapshot
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step

RUN, OPTIM = RunConfig(batch_size=8), OptimConfig(lr=0.05, backbone_lr=0.1, lookahead_steps=2)


def trained_state(device: str = "cpu") -> TrainingState:
    """Return the state after one step, with momenta and slow weights."""
    task = toy_task().to(device).to(memory_format=torch.channels_last)
    state = TrainingState(task, run=RUN, optim=OPTIM, device=torch.device(device))
    train(state)
    return state


def train(state: TrainingState) -> None:
    batch = toy_batch(state.step, batch_size=8)
    state.losses.add(train_step(state.task, [batch], state, run=RUN, optim=OPTIM))


def saved(values: dict, path: Path) -> bytes:
    torch.save(values, path)
    return path.read_bytes()


def test_later_steps_do_not_change_a_copy(tmp_path: Path) -> None:
    state = trained_state()
    before = saved(state.state_dict(), tmp_path / "state.pt")
    copied = Snapshot().take(state.state_dict())
    for _ in range(3):
        train(state)
    assert saved(copied, tmp_path / "state.pt") == before
    assert saved(state.state_dict(), tmp_path / "state.pt") != before


def test_tensors_that_share_memory_share_it_in_a_copy() -> None:
    whole = torch.arange(12.0).view(3, 4)
    state = {"tied": [whole, whole.t()], "part": (whole[1:, 2], None), "empty": torch.empty(0)}
    copied = Snapshot().take(state)
    whole.zero_()
    (straight, turned), (part, _) = copied["tied"], copied["part"]
    assert torch.equal(straight, torch.arange(12.0).view(3, 4))
    assert turned.untyped_storage().data_ptr() == straight.untyped_storage().data_ptr()
    assert turned.stride() == (1, 4)
    assert part.tolist() == [6.0, 10.0]
    assert copied["empty"].shape == (0,)


def test_the_next_copy_takes_the_memory_of_the_last() -> None:
    state, snapshot = trained_state(), Snapshot()
    copies = []
    for _ in range(2):
        copies.append(snapshot.take(state.state_dict()))
        train(state)
    first, second = (
        [copy["task"]["head.weight"].data_ptr(), copy["lookahead"]["slow"][0].data_ptr()]
        for copy in copies
    )
    assert first == second


@pytest.mark.gpu
def test_a_copy_of_a_gpu_lies_in_pinned_memory_and_is_whole_after_the_wait() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    weights = torch.randn(2**26, device="cuda")
    expected, snapshot = weights.cpu(), Snapshot()
    copied = snapshot.take({"weights": weights})["weights"]
    weights.zero_()
    snapshot.wait()
    assert copied.is_pinned()
    assert_identical(copied, expected)
