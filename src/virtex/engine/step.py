"""One training step: forward and backward passes of all pieces, clipping, and the update.

The host queues a step and never waits for the device.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from virtex import distributed
from virtex.engine.device_batches import mark_dynamic
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, autocast, seed_of_step, seed_step
from virtex.engine.state import TrainingState
from virtex.engine.two_pass import backward_in_two_passes
from virtex.tasks.base import Batch, PairwiseTask, TaskOutput


def train_step(
    model: nn.Module,
    pieces: list[Batch],
    state: TrainingState,
    *,
    run: RunConfig,
    optim: OptimConfig,
) -> dict[str, Tensor]:
    """Take one step on this process's part of a batch; return loss, logs and gradient norm.

    Args:
        pieces: Its pieces, on the device, of which the gradients are accumulated.
    """
    task = state.task
    seed_step(run.seed, state.step, distributed.rank())
    with autocast(run.precision, state.device):
        pieces = task.prepare_step(pieces, seed=seed_of_step(run.seed, state.step))
    if run.compile != "none":
        for piece in pieces:
            mark_dynamic(piece, task.dynamic)
    pieces = with_mean_counts(pieces, task.counts)
    if isinstance(task, PairwiseTask) and len(pieces) > 1:
        outputs = [backward_in_two_passes(task, pieces, state, run=run)]
    else:
        outputs = backward_passes(model, pieces, state, run=run)
    totals: dict[str, Tensor] = {}
    for output in outputs:
        for name, value in {"loss": output.loss, **output.logs}.items():
            totals[name] = totals.get(name, 0) + value.detach() / len(outputs)
    norm = update(state, optim)
    task.after_step(state.step, [output.kept for output in outputs])
    if state.average:  # after the running statistics that some tasks move in `after_step`
        state.average.update(state.step)
    return {**totals, "grad_norm": norm}


def backward_passes(
    model: nn.Module, pieces: list[Batch], state: TrainingState, *, run: RunConfig
) -> list[TaskOutput]:
    """Accumulate the gradients of all pieces; return the output of each."""
    outputs: list[TaskOutput] = []
    for number, piece in enumerate(pieces, start=1):
        with synchronized(model, number == len(pieces)):
            with autocast(run.precision, state.device):
                output = model(piece)
            state.scaler.scale(output.loss / len(pieces)).backward()
        outputs.append(replace(output, loss=output.loss.detach()))
    return outputs


def update(state: TrainingState, optim: OptimConfig) -> Tensor:
    """Clip the gradients and update the weights; return the gradients' norm before clipping."""
    state.scaler.unscale_(state.optimizer)
    norm = state.clip(state.parameters, optim.max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.lookahead:  # the scaler skips a step whose gradients are not finite
        state.lookahead.step(norm.isfinite() if state.scaler.is_enabled() else None)
    state.step += 1
    return norm


def with_mean_counts(pieces: list[Batch], names: Sequence[str]) -> list[Batch]:
    """Return pieces whose numbers of targets are the means over all pieces and processes."""
    if not names or (len(pieces) == 1 and distributed.world_size() == 1):
        return pieces
    own = torch.stack([torch.cat([piece[name].flatten() for name in names]) for piece in pieces])
    means = distributed.mean(own.mean(0)).split([pieces[0][name].numel() for name in names])
    shared = {name: mean.view_as(pieces[0][name]) for name, mean in zip(names, means, strict=True)}
    return [{**piece, **shared} for piece in pieces]


def synchronized(model: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Return a context whose backward passes average gradients over processes only if `now`."""
    if now or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return cast(AbstractContextManager[None], model.no_sync())
