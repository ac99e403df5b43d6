"""Output of a run while it trains: records and checkpoints."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from virtex import distributed
from virtex.engine import checkpoint
from virtex.engine.meter import Speed
from virtex.engine.optim import OptimConfig, lr_scale
from virtex.engine.run import Record, RunConfig, RunFolder, due
from virtex.engine.snapshot import Snapshot
from virtex.engine.state import TrainingState
from virtex.engine.tracking import Tracker, begin_tracking, facts_of
from virtex.engine.watching import Watch, gpu_use
from virtex.engine.weight_average import averaged_state
from virtex.errors import CheckpointError, VirTexError
from virtex.monitors.monitors import Monitors
from virtex.progress import ProgressBar

log = logging.getLogger(__name__)
RETRIES = (2.0, 8.0, 20.0)
"""Seconds before each further try to write the last checkpoint."""
OnCheckpoint = Callable[[int], None]
"""What is done with the task at a step whose checkpoint is written, while training waits."""
OnWritten = Callable[[int, Mapping[str, Tensor], Mapping[str, Tensor] | None], None]
"""What is done with the task's state dict, and that of averaged weights if there are any, of a step
whose checkpoint is written."""


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
        config: Mapping[str, Any],
        monitors: Monitors | None = None,
    ) -> None:
        self.state, self.folder, self.bar = state, folder, bar
        self.run, self.optim = run, optim
        self.tracker: Tracker | None = None
        if state.step:
            bar.say(f"resuming after step {state.step}")
        if distributed.is_main():
            facts = facts_of(config, state.device)
            folder.begin(state.step, tensorboard=run.tensorboard)
            if folder.events is not None:
                folder.events.log_facts(facts)
            self.tracker = begin_tracking(folder.path, run, step=state.step, facts=facts)
        self.watch = None if monitors is None else Watch(monitors, folder, step=state.step)

    def report_training(self, speed: Speed) -> None:
        """Write the mean losses since the last record, the learning rates and the speed."""
        step = self.state.step
        use = gpu_use(self.state.device) if self.watch else {}  # before the device is waited for
        means = self.state.losses.read(step)
        scale = lr_scale(self.optim, step=step - 1, num_steps=self.run.num_steps)
        if self.watch:
            means |= self.watch.norms(self.state.losses)
        lr = {"lr": self.optim.lr * scale, "backbone_lr": self.optim.backbone_lr * scale}
        self._write(
            {
                "step": step,
                **{f"train/{name}": value for name, value in {**means, **lr}.items()},
                **{f"speed/{name}": value for name, value in {**speed.read(), **use}.items()},
            }
        )

    def report_validation(self, numbers: Record) -> None:
        """Write the numbers of a validation."""
        self._write(
            {"step": self.state.step, **{f"val/{name}": value for name, value in numbers.items()}}
        )

    def close(self) -> None:
        """Close the log, and wait a bounded time for the dashboard."""
        self.folder.close()
        if self.tracker is not None:
            self.tracker.close()

    def _write(self, record: Record) -> None:
        if distributed.is_main():
            self.folder.log(record)
            if self.tracker is not None:
                self.tracker.check()
            show(record, self.bar, num_steps=self.run.num_steps)
            if self.watch is not None:
                self.watch.observe(record)


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
    """Writer of a run's checkpoints, which also removes old ones.

    A thread of the main process writes a copy of the state while training goes on. Training waits
    for the write of the last checkpoint, for hooks that need the task, and where there is no memory
    for a copy.
    """

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        *,
        run: RunConfig,
        config: dict[str, Any],
        on_checkpoint: OnCheckpoint | None,
        on_written: OnWritten | None,
        saving: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take what is written and called.

        Args:
            saving: Context in which training waits for a write.
        """
        self.saving = saving
        self.state, self.checkpoints, self.run, self.config = state, folder.checkpoints, run, config
        self.on_checkpoint, self.on_written = on_checkpoint, on_written
        self.saved_step = 0
        self._snapshot: Snapshot | None = Snapshot()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None

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
            self._call_hooks()

    def save_scheduled(self) -> None:
        """Save, and log a failure to write as an error unless this is the last step."""
        if self.state.step == self.run.num_steps:
            return self.save_last()
        try:
            if self.on_checkpoint is not None or not self._begin_save():
                self._save_and_call_hooks()
        except (CheckpointError, OSError) as error:
            log.error("%s Training goes on.", error)

    def save_last(self, *, with_hook: bool = True) -> None:
        """Save before the run ends, and try a failed write again for half a minute.

        Raises:
            CheckpointError: The disk stays full; says which steps are lost.
        """
        for delay in RETRIES:
            try:
                return self._save_and_call_hooks() if with_hook else self.save()
            except (CheckpointError, OSError) as error:
                log.error("%s Trying again in %g s.", error, delay)
                with self.saving():
                    time.sleep(delay)
        try:
            self._save_and_call_hooks() if with_hook else self.save()
        except (CheckpointError, OSError) as error:
            raise CheckpointError(f"{error} {self._what_is_lost()}") from error

    def save_and_raise(self, failure: Exception | None) -> None:
        """Save since the run ends early; then raise the error of this or of another process."""
        failures = distributed.gather_objects(None if failure is None else str(failure))
        self.save_last(with_hook=False)
        step = self.state.step
        if step and self.on_checkpoint is None:  # else the weights are those of the best checkpoint
            try:
                self._hand_over()
            except (CheckpointError, OSError) as error:
                log.error("%s The checkpoint of step %d is written.", error, step)
        saved = f"The {step} finished steps are saved: the same command resumes after them."
        if isinstance(failure, VirTexError):
            failure.args = (f"{str(failure).rstrip('.')}. {saved if step else ''}".rstrip(),)
        elif failure is not None and step:
            log.error(saved)
        if failure is not None:
            raise failure
        if step and not any(failures) and distributed.is_main():
            log.info("stopped after step %d, which is saved: the same command goes on", step)
        for rank, text in enumerate(failures):
            if text is not None:
                raise VirTexError(f"process {rank} of the run failed: {text.rstrip('.')}. {saved}")

    def save(self) -> None:
        """Save the state if it is not saved yet, then remove old checkpoints.

        Raises:
            CheckpointError: The checkpoint cannot be written.
            VirTexError: A loss or weight is not finite; nothing is written.
        """
        self._check()
        self.finish()
        step = self.state.step
        if step != self.saved_step:
            with self.saving():
                distributed.on_main(lambda: self._write(self.state.state_dict()))
        self.saved_step = step

    def finish(self) -> None:
        """Wait in all processes until the thread has written."""
        with self.saving():
            self.saved_step = distributed.on_main(self._wait)

    def close(self) -> None:
        """Wait in this process until the thread has written, and end it."""
        with self.saving():
            self._thread.shutdown()
            self._wait()

    def _check(self) -> None:
        self.state.losses.check(self.state.step)
        self.state.check_finite()

    def _begin_save(self) -> bool:
        """Copy the state and let the thread write it; return False if the system cannot."""
        self._check()
        with self.saving():  # perhaps for the write before this one
            return distributed.on_main(self._start)

    def _start(self) -> bool:
        self._wait()
        if self._snapshot is None:
            return False
        try:
            values = self._snapshot.take(self.state.state_dict())
            self._pending = self._thread.submit(self._write_copy, self._snapshot, values)
        except (MemoryError, RuntimeError) as error:  # too little memory, or no thread is left
            reason = str(error).strip().splitlines()[0]
            log.warning("checkpoints are written while training waits: %s", reason)
            self._snapshot = None
        return self._snapshot is not None

    def _write_copy(self, snapshot: Snapshot, values: dict[str, Any]) -> None:
        snapshot.wait()
        try:
            self._write(values)
            self.saved_step = values["step"]
            if self.on_written is not None:
                self.on_written(values["step"], values["task"], averaged_state(values))
        except (CheckpointError, OSError) as error:
            log.error("%s Training goes on.", error)

    def _wait(self) -> int:
        """Wait for the thread, raise what it could not log, and return the last saved step."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
        return self.saved_step

    def _write(self, values: dict[str, Any]) -> None:
        step = values["step"]
        checkpoint.save(self.checkpoints.at(step), {**values, "config": self.config})
        self.checkpoints.prune(
            newest=step, keep=self.run.keep_checkpoints, keep_every=self.run.keep_every
        )

    def _save_and_call_hooks(self) -> None:
        self.save()
        self._call_hooks()

    def _what_is_lost(self) -> str:
        step, saved = self.state.step, self.saved_step
        if step == saved:
            return f"The checkpoint of step {step} is written: the same command writes the rest."
        newest = f"the checkpoint of step {saved}" if saved else "the start: there is no checkpoint"
        return f"Steps {saved + 1} to {step} are lost; the same command resumes from {newest}."

    def _hand_over(self) -> None:
        """Call `on_written` with the weights of this step."""
        step = self.state.step
        if (on_written := self.on_written) is not None:
            values = self.state.state_dict()
            with self.saving():
                distributed.on_main(
                    lambda: on_written(step, values["task"], averaged_state(values))
                )

    def _call_hooks(self) -> None:
        step = self.state.step
        self._hand_over()
        if (on_checkpoint := self.on_checkpoint) is not None:
            distributed.on_main(lambda: on_checkpoint(step))
