"""The training loop, on one screen, and evaluation.

Batches come in as an iterator that starts at any step; validation and whatever follows a checkpoint
are plain callables. Nothing inside a step waits for the device.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from virtex import distributed
from virtex.engine.meter import Speed
from virtex.engine.optim import OptimConfig, lr_scale, set_lr
from virtex.engine.progress import Progress, Record
from virtex.engine.recording import Keeper, Reporter
from virtex.engine.run import (
    RunConfig,
    RunFolder,
    autocast,
    check_batch_size,
    configure_torch,
    due,
    seed_step,
)
from virtex.engine.signals import StopSignals
from virtex.engine.state import TrainingState
from virtex.models.batch_norm import synchronize
from virtex.tasks.base import Batch, Task

CPU = torch.device("cpu")
ON_HOST = frozenset({"lengths", "num_objects", "sizes", "image_sizes"})
"""Tensors of a batch that shapes depend on."""


class BatchStream(Protocol):
    """An endless iterator over this process's share of each batch; a generator is one."""

    def __iter__(self) -> "BatchStream": ...

    def __next__(self) -> Batch: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class FitResult:
    """How training ended, and after how many steps."""

    step: int
    reason: Literal["finished", "interrupted"]

    @property
    def exit_code(self) -> int:
        """0, or 143 after SIGTERM or Ctrl-C, so that a script does not go on as if it were done."""
        return 0 if self.reason == "finished" else 143


def fit(
    task: Task,
    batches: Callable[[int], BatchStream],
    *,
    folder: RunFolder,
    run: RunConfig,
    optim: OptimConfig,
    device: torch.device,
    config: dict[str, Any],
    validate: Callable[[int], Record] | None = None,
    on_checkpoint: Callable[[int, Path], None] | None = None,
) -> FitResult:
    """Train a task up to `run.num_steps`, from the folder's newest checkpoint if it has one.

    Args:
        batches: Gives the batches from a step (counted from 0) on; closed at the end.
        config: Plain values to keep in each checkpoint.
        validate: Called on every process, in evaluation mode; its numbers are logged as val/NAME.
        on_checkpoint: Called on the main process once a scheduled checkpoint is safe, and again on
            resuming from one, since a kill may have come in between.

    Returns:
        How it ended; every process then holds the weights and statistics that were saved.

    Raises:
        VirTexError: A loss or weight is not finite; nothing bad has been saved.
    """
    check_batch_size(run)
    configure_torch(run, device)
    layout = torch.channels_last if run.channels_last else torch.preserve_format
    task.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
    if run.sync_batch_norm:
        synchronize(task, device)
    state = TrainingState(task, run=run, optim=optim, device=device)
    keeper = Keeper(state, folder, run=run, config=config, on_checkpoint=on_checkpoint)
    keeper.resume()
    if state.step >= run.num_steps:
        return FitResult(state.step, "finished")
    if run.compile:
        task.compile()
    model, speed = distributed.wrap(task), Speed()
    with (
        StopSignals() as stop,
        closing(batches(state.step)) as stream,
        Progress(start=state.step, num_steps=run.num_steps) as progress,
        closing(Reporter(state, folder, progress, run=run, optim=optim)) as reporter,
    ):
        while state.step < run.num_steps:
            if distributed.any_true(stop.requested, CPU):
                keeper.save()
                return FitResult(state.step, "interrupted")
            set_lr(state.optimizer, lr_scale(optim, step=state.step, num_steps=run.num_steps))
            batch = speed.next(stream, run.batch_size)
            state.losses.add(train_step(model, batch, state, run=run, optim=optim))
            progress.advance(state.step)
            if due(state.step, run.log_every, run.num_steps):
                reporter.report_training(speed)
            with speed.pause():
                if validate and due(state.step, run.validate_every, run.num_steps):
                    distributed.share_buffers(task)
                    reporter.report_validation(validate)
                if due(state.step, run.checkpoint_every, run.num_steps):
                    keeper.save_scheduled()
    distributed.share_buffers(task)
    return FitResult(state.step, "finished")


def train_step(
    model: nn.Module, batch: Batch, state: TrainingState, *, run: RunConfig, optim: OptimConfig
) -> dict[str, Tensor]:
    """One step on this process's share of a batch; its loss, logs and gradient norm, detached."""
    seed_step(run.seed, state.step, distributed.rank())
    pieces = split(batch, run.accumulation_steps)
    totals: dict[str, Tensor] = {}
    for number, piece in enumerate(pieces, start=1):
        with synchronized(model, number == len(pieces)):
            with autocast(run.precision, state.device):
                output = model(to_device(piece, state.device, channels_last=run.channels_last))
            state.scaler.scale(output.loss / len(pieces)).backward()
        for name, value in {"loss": output.loss, **output.logs}.items():
            totals[name] = totals.get(name, 0) + value.detach() / len(pieces)
    state.scaler.unscale_(state.optimizer)
    gradients = [p.grad for p in state.parameters if p.grad is not None]
    norm = get_total_norm(gradients)
    if optim.max_grad_norm:
        clip_grads_with_norm_(state.parameters, optim.max_grad_norm, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if state.lookahead:
        state.lookahead.step()
    state.step += 1
    state.task.after_step(state.step)
    return {**totals, "grad_norm": norm}


def split(batch: Batch, num_pieces: int) -> list[Batch]:
    """Cut each tensor of a batch into equal pieces along its first dimension."""
    if num_pieces == 1:
        return [batch]
    pieces = {name: tensor.chunk(num_pieces) for name, tensor in batch.items()}
    return [{name: cut[i] for name, cut in pieces.items()} for i in range(num_pieces)]


def synchronized(model: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Whether a backward pass averages gradients over processes, or leaves that to a later one."""
    if now or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return cast(AbstractContextManager[None], model.no_sync())


def to_device(batch: Batch, device: torch.device, *, channels_last: bool) -> Batch:
    """Move a batch; images (B, 3, H, W) take the layout that convolutions have.

    Those in ON_HOST stay: the host would have to wait for the device to tell it the shapes.
    """
    layouts = {True: torch.channels_last, False: torch.preserve_format}
    return {
        name: value
        if name in ON_HOST
        else value.to(
            device, non_blocking=True, memory_format=layouts[channels_last and value.dim() == 4]
        )
        for name, value in batch.items()
    }


@torch.no_grad()
def evaluate(
    task: Task, batches: Iterable[Batch], *, run: RunConfig, device: torch.device
) -> dict[str, float]:
    """The mean loss and logs over batches, weighted by their sizes, over all processes.

    Each process passes its own share of the examples. Dropout and BatchNorm are in evaluation mode;
    a task that draws at random draws the same each time.
    """
    was_training = task.training
    task.eval()
    torch.manual_seed(run.seed)
    names: list[str] = []
    rows, sizes = [], []
    for batch in batches:
        with autocast(run.precision, device):
            output = task(to_device(batch, device, channels_last=run.channels_last))
        scalars = {"loss": output.loss, **output.logs}
        names = list(scalars)
        rows.append(torch.stack([value.detach().float() for value in scalars.values()]))
        sizes.append(len(next(iter(batch.values()))))
    task.train(was_training)
    table = torch.stack(rows).cpu().double() if rows else torch.empty(0, 0)  # (batches, names)
    sums = torch.tensor(sizes, dtype=table.dtype) @ table
    own = dict(zip(names, sums.tolist(), strict=True)), sum(sizes)
    return _means(distributed.gather_objects(own))


def _means(shares: list[Any]) -> dict[str, float]:
    """The mean of each scalar, given each process's (sums, number of examples)."""
    num_examples = sum(size for _, size in shares)
    names = list(next((sums for sums, size in shares if size), {}))
    return {name: sum(sums.get(name, 0.0) for sums, _ in shares) / num_examples for name in names}
