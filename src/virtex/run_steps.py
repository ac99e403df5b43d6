"""Batches, validation and saving of weights of a pretraining run."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from virtex import config as config_files
from virtex import distributed
from virtex.data.example import Source
from virtex.data.fault_log import FaultLog
from virtex.data.loader import training_batches, validation_batches
from virtex.data.shards.remote import RemoteShards
from virtex.early_stopping import EarlyStopping
from virtex.engine import checkpoint
from virtex.engine.evaluation import evaluate
from virtex.engine.image_probe import FEWEST_EXAMPLES, MAX_BATCHES, ImageProbe
from virtex.engine.run import RunFolder
from virtex.engine.signals import StopSignals
from virtex.engine.weight_average import averaged_state
from virtex.errors import DataError
from virtex.pretrain_config import PretrainConfig
from virtex.run_summary import TimedBatches
from virtex.sample_panels import PanelWriter
from virtex.samples import SampleWriter
from virtex.tasks.base import Task, TaskData
from virtex.zoo.weights_file import AVERAGED_NAME, WEIGHTS_NAME, save_weights, step_of

log = logging.getLogger("virtex")
STOPPED = "early_stopping/stopped_at_step"
"""Name in log.jsonl of the step at which early stopping ended a run."""


class RunSteps:
    """What a run does at its steps, each a function of the step."""

    def __init__(
        self,
        config: PretrainConfig,
        task: Task,
        data: TaskData,
        device: torch.device,
        train: Source,
        validation: Source | None,
        early_stopping: EarlyStopping | None,
        remote: RemoteShards | None = None,
        folder: RunFolder | None = None,
    ) -> None:
        self.config, self.task, self.data, self.device = config, task, data, device
        self.train, self.validation, self.early_stopping = train, validation, early_stopping
        self.remote, self.samples = remote, None
        if validation is not None and task.writer and config.num_samples and distributed.is_main():
            panels = None if folder is None else PanelWriter(folder, config.run, config.image)
            self.samples = SampleWriter(
                config.out,
                validation,
                data.vocabulary,
                config.image,
                limit=config.num_samples,
                panels=panels,
            )

    def batches(self, start_step: int) -> TimedBatches:
        """Return this process's part of the training batches from a step on."""
        if self.remote is not None:
            self.remote.follow(start_step)
        if self.early_stopping is not None:
            self.early_stopping.begin(start_step)
        stream = training_batches(
            self.train,
            self.task.encode,
            self.task.collate,
            seed=self.config.run.seed,
            batch_size=self.config.run.batch_size,
            start_step=start_step,
            share=distributed.share(),
            num_pieces=self.config.run.accumulation_steps,
            config=self.config.loader,
            num_lanes=self.config.data.num_lanes,
            fault_limit=None if self.train.shard_counts is None else self.config.data.fault_limit,
            fault_log=FaultLog(self.config.out, rank=distributed.rank(), start_step=start_step),
        )
        return TimedBatches(
            stream,
            num_steps=self.config.run.num_steps,
            step=start_step,
            on_step=None if self.remote is None else self.remote.advance,
        )

    def validate(self, step: int, stop: StopSignals) -> dict[str, float]:
        """Return the validation loss and its parts, and write sample captions."""
        assert self.validation is not None
        batches = validation_batches(
            self.validation,
            self.task.encode_validation,
            self.task.collate,
            batch_size=self.config.run.piece_size,
            share=distributed.share(),
            config=self.config.loader,
        )
        probe = self._image_probe()
        batches = stop.each(batches if probe is None else probe.keep(batches))
        numbers = evaluate(self.task, batches, run=self.config.run, device=self.device)
        if stop.has_cut:
            return {}
        if probe is not None:
            numbers |= probe.numbers(self.task, run=self.config.run, device=self.device)
        if self.samples is not None and self.task.writer is not None:
            try:
                self.samples.write(self.task.writer, step=step, device=self.device)
            except DataError as error:
                log.error("step %d has no sample captions: %s Training goes on.", step, error)
        return numbers

    def _image_probe(self) -> ImageProbe | None:
        assert self.validation is not None
        run, number = self.config.run, len(self.validation)
        if not run.monitors or number < FEWEST_EXAMPLES:
            return None
        most = MAX_BATCHES * run.accumulation_steps
        return ImageProbe(math.ceil(number / run.piece_size), most=most)

    def keep_weights(
        self, step: int, task_state: Mapping[str, Tensor], averaged: Mapping[str, Tensor] | None
    ) -> None:
        """Write weights_ema.safetensors if there are averaged weights, then weights.safetensors."""
        for name, state in ((AVERAGED_NAME, averaged), (WEIGHTS_NAME, task_state)):
            if state is not None:
                save_weights(
                    self.config.out / name,
                    state,
                    config=config_files.to_dict(self.config),
                    tokenizer=self.data.tokenizer,
                    categories=self.data.categories,
                    step=step,
                )

    def keep_best(self, step: int) -> None:
        """Write the weights of a step if no checkpoint scored better in early stopping.

        Those of an earlier one that scored better are written where a full disk prevented that.
        """
        assert self.early_stopping is not None
        while not self.early_stopping.is_best(self.task.backbone, step=step):
            best = self.early_stopping.best_step()
            if step_of(self.config.out / WEIGHTS_NAME) == best:
                return
            if stored := self._stored(best):
                self.keep_weights(best, stored["task"], averaged_state(stored))
                return
            if self.early_stopping.is_over(step):  # the run is complete, and its weights removed
                return
            log.error(
                "the weights of step %d, which scored best, were not written, and its checkpoint "
                "is damaged or removed: the best of the others are kept", best,
            )  # fmt: skip
            self.early_stopping.forget(best)
            if step_of(self.config.out / AVERAGED_NAME) == best:
                (self.config.out / AVERAGED_NAME).unlink()
        averaged = None
        if self.config.optim.ema_decay:
            folder = RunFolder(self.config.out).checkpoints
            averaged = averaged_state(checkpoint.load(folder.at(step)))
        self.keep_weights(step, self.task.state_dict(), averaged)

    def _stored(self, step: int) -> dict[str, Any] | None:
        """Return the checkpoint of a step, unless it is removed or damaged.

        Raises:
            CheckpointError: It cannot be read now.
        """
        path = RunFolder(self.config.out).checkpoints.at(step)
        try:
            return checkpoint.load(path) if path.exists() else None
        except checkpoint.DamagedError as error:
            log.error("%s", error)
            return None

    def is_over(self, step: int) -> bool:
        """Return whether early stopping ends the run at a step, and record that once.

        A run goes on while the weights of its best checkpoint cannot be written.
        """
        if self.early_stopping is None or not self.early_stopping.is_over(step):
            return False
        best = self.early_stopping.best_step()
        is_stored = RunFolder(self.config.out).checkpoints.at(best).exists()
        if is_stored and step_of(self.config.out / WEIGHTS_NAME) != best:
            log.error(
                "step %d: patience has ended, but step %d, the best, is not written", step, best
            )
            return False
        log.info(
            "step %d: the run is complete, since none of the last %d scored checkpoints was better "
            "than that of step %d",
            step, self.config.early_stopping.patience, best,
        )  # fmt: skip
        folder = RunFolder(self.config.out)
        logged = folder.log_path.read_text(encoding="utf-8") if folder.log_path.exists() else ""
        if f'"{STOPPED}": {step},' not in logged:
            folder.log({"step": step, STOPPED: step, "early_stopping/best_step": best})
        return True
