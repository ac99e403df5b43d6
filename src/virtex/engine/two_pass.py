"""Gradients of a step in several pieces whose loss compares all of their examples.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache,
RepL4NLP 2021), section 3: all pieces are embedded without gradient; the loss of all embeddings
gives their gradients; then each piece is embedded again, and its gradients go on from there.
Both passes draw the same random numbers and normalize by the same batch statistics.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from virtex import distributed
from virtex.engine.run import RunConfig, autocast, seed_step
from virtex.engine.state import TrainingState
from virtex.tasks.base import Batch, PairwiseTask, TaskOutput


def backward_in_two_passes(
    task: PairwiseTask, pieces: Sequence[Batch], state: TrainingState, *, run: RunConfig
) -> TaskOutput:
    """Set the gradients of a step, averaged over processes, and return the output of all pieces.

    The task runs without the wrapper that averages gradients: its loss lies between two passes.
    """
    embeddings = _embed_all(task, pieces, state, run=run)
    with autocast(run.precision, state.device):
        output = task.compare(embeddings)
    state.scaler.scale(output.loss).backward()
    seed_step(run.seed, state.step, distributed.rank())
    gradients = {name: _gradient(value).chunk(len(pieces)) for name, value in embeddings.items()}
    for number, piece in enumerate(pieces):
        with autocast(run.precision, state.device):
            embedded = task.embed(piece)
        learned = [name for name, value in embedded.items() if value.requires_grad]
        torch.autograd.backward(
            [embedded[name] for name in learned], [gradients[name][number] for name in learned]
        )
    average_gradients(state.parameters)
    return output


@torch.no_grad()
def _embed_all(
    task: PairwiseTask, pieces: Sequence[Batch], state: TrainingState, *, run: RunConfig
) -> dict[str, Tensor]:
    """Return the embeddings of all pieces as leaves with gradient; BatchNorm's statistics stay."""
    buffers = list(task.buffers())
    saved = [buffer.clone() for buffer in buffers]
    seed_step(run.seed, state.step, distributed.rank())
    embedded = []
    for piece in pieces:
        with autocast(run.precision, state.device):
            embedded.append(task.embed(piece))
    for buffer, value in zip(buffers, saved, strict=True):
        buffer.copy_(value)
    return {
        name: torch.cat([part[name] for part in embedded]).requires_grad_() for name in embedded[0]
    }


def _gradient(embeddings: Tensor) -> Tensor:
    return torch.zeros_like(embeddings) if embeddings.grad is None else embeddings.grad


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their means over all processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if distributed.world_size() == 1:
        return
    means = distributed.mean(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = means.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
