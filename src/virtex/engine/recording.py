"""Output of a run while it trains: records and checkpoints."""

import logging
import time
from collections.abc import Callable
from typing import Any

from virtex import distributed
from virtex.engine import checkpoint
from virtex.engine.meter import Speed
from virtex.engine.optim import OptimConfig, lr_scale
from virtex.engine.run import Record, RunConfig, RunFolder, due
from virtex.engine.state import TrainingState
from virtex.errors import CheckpointError, VirTexError
from virtex.progress import ProgressBar

log = logging.getLogger(__name__)
RETRIES = (2.0, 8.0, 20.0)
"""Seconds before each further try to write the last checkpoint."""


class Reporter:
    """Writer of a run's records to its log and to the terminal."""

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        bar: ProgressBar,
        *,
        run: RunConfig,
        optim: OptimConfig,
    ) -> None:
        self.state, self.folder, self.bar = state, folder, bar
        self.run, self.optim = run, optim
        if state.step:
            bar.say(f"resuming after step {state.step}")
        if distributed.is_main():
            folder.begin(state.step, tensorboard=run.tensorboard)

    def report_training(self, speed: Speed) -> None:
        """Write the mean losses since the last record, the learning rates and the speed."""
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
        """Validate in evaluation mode and write the numbers."""
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
            show(record, self.bar, num_steps=self.run.num_steps)


def show(record: Record, bar: ProgressBar, *, num_steps: int) -> None:
    """Show a record beside the progress bar, or as a line if it has no losses or no terminal."""
    text = {name: f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in record.items()}
    if "train/loss" not in record:
        summary = "  ".join(f"{name} {text[name]}" for name in text if name != "step")
    else:
        summary = (
            f"loss {text['train/loss']}  {text['speed/images_per_second']} images/s"
            f"  waiting for data {float(record['speed/data_wait']):.0%}"
        )
    if bar.is_live and "train/loss" in record:
        bar.note(summary)
    else:
        bar.say(f"step {record['step']}/{num_steps}  {summary}")


class CheckpointWriter:
    """Writer of a run's checkpoints, which also removes old ones."""

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        *,
        run: RunConfig,
        config: dict[str, Any],
        on_checkpoint: Callable[[int], None] | None,
    ) -> None:
        self.state, self.checkpoints, self.run, self.config = state, folder.checkpoints, run, config
        self.on_checkpoint = on_checkpoint
        self.saved_step = 0

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one.

        Raises:
            CheckpointError: All checkpoints are damaged, the newest does not fit the task, or the
                processes find different checkpoints.
        """
        saved = self.checkpoints.latest()
        steps = distributed.gather_objects(None if saved is None else saved["step"])
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes find different checkpoints in {self.checkpoints.path} (steps "
                f"{steps}): the run folder must be on shared storage."
            )
        if saved is None:
            return
        self.state.load_state_dict(saved)
        self.saved_step = self.state.step
        if due(self.state.step, self.run.checkpoint_every, self.run.num_steps):
            self._call_hook()

    def save_scheduled(self) -> None:
        """Save, and log a failure to write as an error unless this is the last step."""
        if self.state.step == self.run.num_steps:
            return self.save_last()
        try:
            self._save_and_call_hook()
        except (CheckpointError, OSError) as error:
            log.error("%s Training goes on.", error)

    def save_last(self, *, with_hook: bool = True) -> None:
        """Save before the run ends, and try a failed write again for half a minute.

        Raises:
            CheckpointError: The disk stays full; says which steps are lost.
        """
        for delay in RETRIES:
            try:
                return self._save_and_call_hook() if with_hook else self.save()
            except (CheckpointError, OSError) as error:
                log.error("%s Trying again in %g s.", error, delay)
                time.sleep(delay)
        try:
            self._save_and_call_hook() if with_hook else self.save()
        except (CheckpointError, OSError) as error:
            raise CheckpointError(f"{error} {self._what_is_lost()}") from error

    def save_and_raise(self, failure: Exception | None) -> None:
        """Save since the run ends early; then raise the error of this or of another process."""
        failures = distributed.gather_objects(None if failure is None else str(failure))
        self.save_last(with_hook=False)
        step = self.state.step
        saved = f"The {step} finished steps are saved: the same command resumes after them."
        if isinstance(failure, VirTexError):
            failure.args = (f"{str(failure).rstrip('.')}. {saved if step else ''}".rstrip(),)
        elif failure is not None and step:
            log.error(saved)
        if failure is not None:
            raise failure
        for rank, text in enumerate(failures):
            if text is not None:
                raise VirTexError(f"process {rank} of the run failed: {text.rstrip('.')}. {saved}")

    def save(self) -> None:
        """Save the state if it is not saved yet, then remove old checkpoints.

        Raises:
            CheckpointError: The checkpoint cannot be written.
            VirTexError: A loss or weight is not finite; nothing is written.
        """
        step = self.state.step
        self.state.losses.check(step)
        self.state.check_finite()
        if step != self.saved_step:
            distributed.on_main(lambda: self._write(step))
        self.saved_step = step

    def _write(self, step: int) -> None:
        values = {**self.state.state_dict(), "config": self.config}
        checkpoint.save(self.checkpoints.at(step), values)
        self.checkpoints.prune(
            newest=step, keep=self.run.keep_checkpoints, keep_every=self.run.keep_every
        )

    def _save_and_call_hook(self) -> None:
        self.save()
        self._call_hook()

    def _what_is_lost(self) -> str:
        step, saved = self.state.step, self.saved_step
        if step == saved:
            return f"The checkpoint of step {step} is written: the same command writes the rest."
        newest = f"the checkpoint of step {saved}" if saved else "the start: there is no checkpoint"
        return f"Steps {saved + 1} to {step} are lost; the same command resumes from {newest}."

    def _call_hook(self) -> None:
        if self.on_checkpoint:
            hook, step = self.on_checkpoint, self.state.step
            distributed.on_main(lambda: hook(step))
