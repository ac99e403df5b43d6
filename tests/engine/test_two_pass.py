"""A contrastive step in pieces has the gradients of one graph over all pieces."""

import pytest
import torch
from torch.amp import GradScaler

from tests.engine.toy import split
from tests.tasks.small_tasks import build, scenes_batch
from tests.tasks.two_processes import check_gradients
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, autocast, seed_step
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.engine.two_pass import backward_in_two_passes
from virtex.models.text_encoder import TextEncoderConfig
from virtex.tasks.contrastive import Contrastive, ContrastiveConfig

CPU = torch.device("cpu")
OPTIM = OptimConfig(lr=0.01, backbone_lr=0.01)
TEXT = TextEncoderConfig(hidden_size=16, num_layers=1, num_heads=2, dropout=0.3)


def clip() -> Contrastive:
    """With BatchNorm and dropout, in training."""
    task = build(ContrastiveConfig(embedding_size=8, text=TEXT))
    with torch.no_grad():
        for name, parameter in task.named_parameters():
            if name.startswith("text_encoder"):
                parameter.normal_(std=0.3)
    return task.train()


def state_of(task: Contrastive, precision: str) -> tuple[TrainingState, RunConfig]:
    run = RunConfig(precision=precision, device="cpu", accumulation_steps=2)
    state = TrainingState(task, run=run, optim=OPTIM, device=CPU)
    state.scaler = GradScaler("cpu", init_scale=64, enabled=precision == "fp16")
    return state, run


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_two_passes_are_one_graph(precision: str) -> None:
    whole, task = clip(), clip()
    pieces = split(scenes_batch(task, range(8)), 2)
    state, run = state_of(task, precision)
    output = backward_in_two_passes(task, pieces, state, run=run)
    seed_step(run.seed, 0, 0)
    embedded = []
    for piece in pieces:
        with autocast(precision, CPU):
            embedded.append(whole.embed(piece))
    expected = whole.compare(
        {name: torch.cat([part[name] for part in embedded]) for name in embedded[0]}
    )
    state.scaler.scale(expected.loss).backward()
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    check_gradients(
        {name: parameter.grad for name, parameter in task.named_parameters()},
        {name: parameter.grad for name, parameter in whole.named_parameters()},
    )
    torch.testing.assert_close(dict(task.named_buffers()), dict(whole.named_buffers()))


def test_a_step_in_pieces_compares_all_pairs_and_ends_as_any_other() -> None:
    task = clip()
    batch = scenes_batch(task, range(8))
    state, run = state_of(task, "fp16")
    before = task.log_scale.item()
    logs = train_step(task, split(batch, 2), state, run=run, optim=OPTIM)
    assert state.step == 1
    assert set(logs) == {"loss", "contrastive", "retrieval_top1", "temperature", "grad_norm"}
    assert logs["loss"] > 1.5  # log 8, not log 4, as with pairs of one piece
    assert task.log_scale.item() != before
    assert all(parameter.grad is None for parameter in task.parameters())
