"""The training loop.

Batches come from an iterator that can start at any step; validation and the hook after a checkpoint
are callables. No operation within a step waits for the device.
"""

import gc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from virtex import distributed
from virtex.engine.compiled import compile_optimizer, compile_parts
from virtex.engine.device_batches import BatchesAhead, BatchStream
from virtex.engine.meter import Speed
from virtex.engine.optim import OptimConfig, lr_scale, set_lr
from virtex.engine.recording import CheckpointWriter, OnCheckpoint, OnWritten, Reporter
from virtex.engine.run import (
    Record,
    RunConfig,
    RunFolder,
    check_batch_size,
    configure_torch,
    due,
)
from virtex.engine.signals import StopSignals
from virtex.engine.state import TrainingState
from virtex.engine.step import train_step
from virtex.models.batch_norm import synchronize
from virtex.monitors.monitors import Monitors
from virtex.progress import ProgressBar
from virtex.tasks.base import Batch, Task

CPU = torch.device("cpu")
Validate = Callable[[int, StopSignals], Record]
"""Function of a step that returns numbers; it reads its batches by `StopSignals.each`, which a
signal may cut short: then its numbers are dropped."""
Reason = Literal["finished", "stopped", "interrupted"]


@dataclass(frozen=True)
class FitResult:
    """The number of finished steps, and the reason why training ended."""

    step: int
    reason: Reason
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
    validate: Validate | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    on_written: OnWritten | None = None,
    is_over: Callable[[int], bool] | None = None,
    monitors: Monitors | None = None,
) -> FitResult:
    """Train a task to step `run.num_steps`, resuming from the folder's newest checkpoint.

    At the end, every process holds the weights and statistics of the last checkpoint.

    Args:
        batches: Returns the batches from a given step on, counted from 0, each as
            `run.accumulation_steps` pieces. The stream is closed at the end.
        config: Plain values that each checkpoint stores.
        validate: Called in every process, in evaluation mode; its numbers are logged as val/NAME.
            A checkpoint of the same step is written first. When resuming from one whose numbers
            are not logged, since a kill or an error prevented that, it is called again.
        on_checkpoint: Called in the main process after a scheduled checkpoint is written, and
            again when resuming from one, since a kill may have prevented the first call. Training
            waits for the write and the call.
        on_written: Called as `on_checkpoint` is, also with the task's state dict of that step, and
            that of averaged weights or None, in a thread while training goes on.
        is_over: Called in every process after `on_checkpoint`; the run is complete if it returns
            True in one of them.
        monitors: Those of the main process, which look at its records.

    Raises:
        VirTexError: A loss or weight is not finite; no such state was saved. Or there is no next
            batch, as when a worker died, or a validation failed; the finished steps were saved.
    """
    state, stop = _first_state(task, run, optim, device), StopSignals()
    writer = CheckpointWriter(
        state,
        folder,
        run=run,
        config=config,
        on_checkpoint=on_checkpoint,
        on_written=on_written,
        saving=stop.saving,
    )
    writer.resume()
    is_validated = validate is None or _is_validated(folder, state.step, run)
    if is_validated and state.step >= run.num_steps:
        return FitResult(state.step, "finished")
    if is_validated and _is_over(is_over, state.step):
        return FitResult(state.step, "stopped")
    compile_parts(state, run)
    model, speed = distributed.wrap(task), Speed()
    with (
        stop,
        closing(writer),
        closing(batches(state.step)) as stream,
        ProgressBar("step", run.num_steps, unit="steps", start=state.step) as bar,
        closing(
            Reporter(state, folder, bar, run=run, optim=optim, config=config, monitors=monitors)
        ) as reporter,
    ):
        dynamic = task.dynamic if run.compile != "none" else {}
        ahead = BatchesAhead(stream, state.device, run, stop=stop, speed=speed, dynamic=dynamic)
        loop = _Loop(
            state=state,
            model=model,
            run=run,
            optim=optim,
            stop=stop,
            ahead=ahead,
            speed=speed,
            bar=bar,
            writer=writer,
            reporter=reporter,
            validate=validate,
            is_over=is_over,
        )
        del model  # of which the loop alone may hold a reference
        reason = loop.train(is_validated=is_validated)
    if reason != "interrupted":
        distributed.share_buffers(task)
    return FitResult(state.step, reason)


@dataclass(kw_only=True)
class _Loop:
    """The steps of a run, and what is done between them."""

    state: TrainingState
    model: nn.Module
    """The task, wrapped so that processes average its gradients."""
    run: RunConfig
    optim: OptimConfig
    stop: StopSignals
    ahead: BatchesAhead
    speed: Speed
    bar: ProgressBar
    writer: CheckpointWriter
    reporter: Reporter
    validate: Validate | None
    is_over: Callable[[int], bool] | None

    def train(self, *, is_validated: bool) -> Reason:
        """Train to the last step, or until there is no next batch or the run is complete.

        Args:
            is_validated: Whether the validation of the step to begin at needs not be made up for.
        """
        if not is_validated:
            with self.speed.pause():
                if not self._validated():
                    return "interrupted"
            if self._is_complete():
                return "stopped"
        while self.state.step < self.run.num_steps:
            self.stop.beat()
            pieces = self.ahead.take()
            if pieces is None:
                return self._interrupted(self.ahead.failure)
            if self.state.step + 1 < self.run.num_steps:
                self.ahead.fetch()
            self._take_step(pieces)
            if self._is_due(self.run.log_every):
                self.reporter.report_training(self.speed)
            with self.speed.pause():
                self.stop.beat()
                is_saved = self._is_due(self.run.checkpoint_every)
                if is_saved:
                    self.writer.save_scheduled()
                if self._is_due(self.run.validate_every) and not self._validated():
                    return "interrupted"
                if is_saved and self.state.step < self.run.num_steps and self._is_complete():
                    return "stopped"
        return "finished"

    def _validated(self) -> bool:
        """Validate if there is something to validate on; return whether nothing cut that short."""
        if self.validate is None:
            return True
        task, failure = self.state.task, None
        numbers: Record = {}
        distributed.share_buffers(task)
        task.eval()
        try:
            numbers = self.validate(self.state.step, self.stop)
        except Exception as error:  # any kind: the steps before it are worth a checkpoint
            failure = error
        task.train()
        has_ended = self.stop.has_cut or failure is not None
        if any(distributed.gather_objects(has_ended)):  # the main process may caption for long
            self._interrupted(failure)
            return False
        self.reporter.report_validation(numbers)
        return True

    def _interrupted(self, failure: Exception | None) -> Reason:
        """Save the finished steps, and raise the failure of this or another process, if any."""
        self.stop.is_saving = True
        self.writer.save_and_raise(failure)
        return "interrupted"

    def _take_step(self, pieces: list[Batch]) -> None:
        state, run, optim = self.state, self.run, self.optim
        if state.step == optim.unfreeze_at:
            del self.model  # whose hooks would average gradients once more
            self.model = _unfrozen(state, run)
        set_lr(state.optimizer, lr_scale(optim, step=state.step, num_steps=run.num_steps))
        state.losses.add(train_step(self.model, pieces, state, run=run, optim=optim))
        self.speed.count(run.batch_size)
        self.bar.reach(state.step)

    def _is_due(self, every: int) -> bool:
        return due(self.state.step, every, self.run.num_steps)

    def _is_complete(self) -> bool:
        """Return whether the run ends here, and if so wait until its checkpoint is written."""
        if not _is_over(self.is_over, self.state.step):
            return False
        self.writer.finish()
        return True


def _first_state(
    task: Task, run: RunConfig, optim: OptimConfig, device: torch.device
) -> TrainingState:
    """Return the state before the first step, with the task on the device in training mode."""
    check_batch_size(run)
    configure_torch(run, device)
    layout = torch.channels_last if run.channels_last else torch.preserve_format
    task.to(device).to(memory_format=layout).train()
    if run.sync_batch_norm:
        is_to_train = optim.unfreeze_at is not None and not task.backbone.config.frozen_norm
        synchronize(task, device, with_frozen=is_to_train)
    return TrainingState(task, run=run, optim=optim, device=device)


def _unfrozen(state: TrainingState, run: RunConfig) -> nn.Module:
    """Unfreeze the task's backbone, and return the task that averages all its gradients."""
    gc.collect()
    state.unfreeze()
    compile_optimizer(state, run)
    return distributed.wrap(state.task)


def _is_validated(folder: RunFolder, step: int, run: RunConfig) -> bool:
    """Return whether the log has the validation of a step, if one was due."""
    if step == 0 or not due(step, run.validate_every, run.num_steps):
        return True
    return distributed.on_main(lambda: folder.has_validation(step))


def _is_over(is_over: Callable[[int], bool] | None, step: int) -> bool:
    return is_over is not None and distributed.any_true(is_over(step), CPU)
