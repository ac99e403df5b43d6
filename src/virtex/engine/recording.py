"""What a run writes as it goes: records, and checkpoints."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtex import distributed
from virtex.engine import checkpoint
from virtex.engine.meter import Speed
from virtex.engine.optim import OptimConfig, lr_scale
from virtex.engine.progress import Progress, Record
from virtex.engine.run import RunConfig, RunFolder, due
from virtex.engine.state import TrainingState
from virtex.errors import CheckpointError

log = logging.getLogger(__name__)


class Reporter:
    """Writes a run's records to its log and shows them."""

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        progress: Progress,
        *,
        run: RunConfig,
        optim: OptimConfig,
    ) -> None:
        self.state, self.folder, self.progress = state, folder, progress
        self.run, self.optim = run, optim
        if distributed.is_main():
            folder.begin(state.step, tensorboard=run.tensorboard)

    def report_training(self, speed: Speed) -> None:
        """Record the mean losses since the last record, learning rates and speed."""
        step = self.state.step
        means = self.state.losses.read(step)
        scale = lr_scale(self.optim, step=step - 1, num_steps=self.run.num_steps)
        lr = {"lr": self.optim.lr * scale, "backbone_lr": self.optim.backbone_lr * scale}
        self._write(
            {
                "step": step,
                **{f"train/{name}": value for name, value in {**means, **lr}.items()},
                **{f"speed/{name}": value for name, value in speed.read().items()},
            }
        )

    def report_validation(self, validate: Callable[[int], Record]) -> None:
        """Validate in evaluation mode and record the numbers."""
        self.state.task.eval()
        numbers = validate(self.state.step)
        self.state.task.train()
        self._write(
            {"step": self.state.step, **{f"val/{name}": value for name, value in numbers.items()}}
        )

    def close(self) -> None:
        """Close the log."""
        self.folder.close()

    def _write(self, record: Record) -> None:
        if distributed.is_main():
            self.folder.log(record)
            self.progress.record(record)


class Keeper:
    """Writes a run's checkpoints and removes those that are no longer wanted."""

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        *,
        run: RunConfig,
        config: dict[str, Any],
        on_checkpoint: Callable[[int, Path], None] | None,
    ) -> None:
        self.state, self.checkpoints, self.run, self.config = state, folder.checkpoints, run, config
        self.on_checkpoint = on_checkpoint
        self.saved_step = 0

    def resume(self) -> None:
        """Go back to the newest checkpoint, if there is one.

        Raises:
            CheckpointError: All are damaged, one does not fit, or processes see different files.
        """
        saved = self.checkpoints.latest()
        steps = distributed.gather_objects(None if saved is None else saved["step"])
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes find different checkpoints in {self.checkpoints.path} (steps "
                f"{steps}): the run folder must be on storage that all of them share."
            )
        if saved is None:
            return
        self.state.load_state_dict(saved)
        self.saved_step = self.state.step
        if due(self.state.step, self.run.checkpoint_every, self.run.num_steps):
            self._tell()

    def save_scheduled(self) -> None:
        """Save; where the disk is full, say so and train on, unless it is the last step."""
        try:
            self.save()
            self._tell()
        except (CheckpointError, OSError) as error:
            if self.state.step == self.run.num_steps:
                raise
            log.error("%s Training goes on.", error)

    def save(self) -> None:
        """Save the state unless it is saved already, then remove old checkpoints.

        Raises:
            CheckpointError: The disk is full.
            VirTexError: A loss or weight is not finite; nothing is written.
        """
        step = self.state.step
        self.state.losses.check(step)
        self.state.check_finite()
        if step != self.saved_step and distributed.is_main():
            values = {**self.state.state_dict(), "config": self.config}
            checkpoint.save(self.checkpoints.at(step), values)
            self.checkpoints.prune(
                newest=step, keep=self.run.keep_checkpoints, keep_every=self.run.keep_every
            )
        self.saved_step = step

    def _tell(self) -> None:
        if self.on_checkpoint and distributed.is_main():
            self.on_checkpoint(self.state.step, self.checkpoints.at(self.state.step))
