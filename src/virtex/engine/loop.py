"""The training loop, and evaluation.

Batches come from an iterator that can start at any step; validation and the hook after a checkpoint
are callables. No operation within a step waits for the device.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from virtex import distributed
from virtex.engine.meter import Speed
from virtex.engine.optim import OptimConfig, lr_scale, set_lr
from virtex.engine.recording import CheckpointWriter, Reporter
from virtex.engine.run import (
    Record,
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
from virtex.progress import ProgressBar
from virtex.tasks.base import Batch, Task

CPU = torch.device("cpu")
ON_HOST = frozenset({"lengths", "num_objects", "sizes", "image_sizes"})
"""Tensors of a batch that determine shapes."""


class BatchStream(Protocol):
    """An endless iterator over this process's part of each batch, such as a generator."""

    def __iter__(self) -> "BatchStream": ...

    def __next__(self) -> Batch: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class FitResult:
    """The number of finished steps, and the reason why training ended."""

    step: int
    reason: Literal["finished", "stopped", "interrupted"]
    """stopped: complete before the last step, as `is_over` said."""

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 143 after a signal, so that scripts stop as well."""
        return 143 if self.reason == "interrupted" else 0


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
    on_checkpoint: Callable[[int], None] | None = None,
    is_over: Callable[[int], bool] | None = None,
) -> FitResult:
    """Train a task to step `run.num_steps`, resuming from the folder's newest checkpoint.

    At the end, every process holds the weights and statistics of the last checkpoint.

    Args:
        batches: Returns the batches from a given step on, counted from 0. The stream is closed at
            the end.
        config: Plain values that each checkpoint stores.
        validate: Called in every process, in evaluation mode; its numbers are logged as val/NAME.
        on_checkpoint: Called in the main process after a scheduled checkpoint is written, and
            again when resuming from one, since a kill may have prevented the first call.
        is_over: Called in every process after `on_checkpoint`; the run is complete if it returns
            True in one of them.

    Raises:
        VirTexError: A loss or weight is not finite; no such state was saved. Or there is no next
            batch, as when a worker died; the finished steps were saved.
    """
    check_batch_size(run)
    configure_torch(run, device)
    layout = torch.channels_last if run.channels_last else torch.preserve_format
    task.to(device).to(memory_format=layout).train()
    if run.sync_batch_norm:
        synchronize(task, device)
    state = TrainingState(task, run=run, optim=optim, device=device)
    writer = CheckpointWriter(state, folder, run=run, config=config, on_checkpoint=on_checkpoint)
    writer.resume()
    if state.step >= run.num_steps:
        return FitResult(state.step, "finished")
    if _is_over(is_over, state.step):
        return FitResult(state.step, "stopped")
    if run.compile:
        task.compile()
    model, speed = distributed.wrap(task), Speed()
    with (
        StopSignals() as stop,
        closing(batches(state.step)) as stream,
        ProgressBar("step", run.num_steps, unit="steps", start=state.step) as bar,
        closing(Reporter(state, folder, bar, run=run, optim=optim)) as reporter,
    ):
        while state.step < run.num_steps:
            stop.beat()
            batch, failure = next_batch(stream, stop, speed, num_images=run.batch_size)
            if distributed.any_true(batch is None, CPU):
                stop.is_saving = True
                writer.save_and_raise(failure)
                return FitResult(state.step, "interrupted")
            assert batch is not None
            set_lr(state.optimizer, lr_scale(optim, step=state.step, num_steps=run.num_steps))
            state.losses.add(train_step(model, batch, state, run=run, optim=optim))
            bar.reach(state.step)
            if due(state.step, run.log_every, run.num_steps):
                reporter.report_training(speed)
            with speed.pause():
                stop.beat()
                if validate and due(state.step, run.validate_every, run.num_steps):
                    distributed.share_buffers(task)
                    reporter.report_validation(validate)
                if due(state.step, run.checkpoint_every, run.num_steps):
                    writer.save_scheduled()
                    if state.step < run.num_steps and _is_over(is_over, state.step):
                        distributed.share_buffers(task)
                        return FitResult(state.step, "stopped")
    distributed.share_buffers(task)
    return FitResult(state.step, "finished")


def next_batch(
    stream: BatchStream, stop: StopSignals, speed: Speed, *, num_images: int
) -> tuple[Batch | None, Exception | None]:
    """Return the next batch, or None after a signal, or None and the error if there is one."""
    try:
        return stop.next(lambda: speed.next(stream, num_images)), None
    except Exception as error:  # any kind: the steps before it are worth a checkpoint
        return None, error


def _is_over(is_over: Callable[[int], bool] | None, step: int) -> bool:
    return is_over is not None and distributed.any_true(is_over(step), CPU)


def train_step(
    model: nn.Module, batch: Batch, state: TrainingState, *, run: RunConfig, optim: OptimConfig
) -> dict[str, Tensor]:
    """Take one step on this process's part of a batch; return loss, logs and gradient norm."""
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
    if state.lookahead:  # the scaler skips a step whose gradients are not finite
        state.lookahead.step(norm.isfinite() if state.scaler.is_enabled() else None)
    state.step += 1
    state.task.after_step(state.step)
    return {**totals, "grad_norm": norm}


def split(batch: Batch, num_pieces: int) -> list[Batch]:
    """Cut each tensor of a batch into equal pieces along its first dimension."""
    pieces = {name: tensor.chunk(num_pieces) for name, tensor in batch.items()}
    return [{name: cut[i] for name, cut in pieces.items()} for i in range(num_pieces)]


def synchronized(model: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Return a context whose backward passes average gradients over processes only if `now`."""
    if now or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return cast(AbstractContextManager[None], model.no_sync())


def to_device(batch: Batch, device: torch.device, *, channels_last: bool) -> Batch:
    """Move a batch to a device; images (B, 3, H, W) take the memory format of convolutions.

    Tensors in ON_HOST stay on the host, which would otherwise wait for the device to read them.
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
    """Return the mean loss and logs over the examples of all processes, in evaluation mode.

    Each process passes its own examples. The random seed is set first, so that a task with random
    numbers gives the same result each time.
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
    parts: list[Any] = distributed.gather_objects(own)
    num_examples = sum(size for _, size in parts)
    names = list(next((sums for sums, size in parts if size), {}))
    return {name: sum(sums.get(name, 0.0) for sums, _ in parts) / num_examples for name in names}
