"""Pretraining: the run of one pretext task on a data source."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

from virtex import config as config_files
from virtex import distributed, files
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.loader import training_batches, validation_batches
from virtex.data.source import Needs, open_source, open_whole, part_to_train, resolved
from virtex.data.source_options import check_options
from virtex.data.tokenizer import Tokenizer
from virtex.early_stopping import EarlyStopping
from virtex.engine.loop import FitResult, evaluate, fit
from virtex.engine.optim import warmup_steps
from virtex.engine.run import RunFolder, check_batch_size, choose_device
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.backbone import Backbone
from virtex.pretrain_config import PretrainConfig, parse_pretrain, steps_of, with_steps
from virtex.resume import check_data, check_files, resumes, with_stored_steps
from virtex.run_summary import TimedBatches, after_training, before_training
from virtex.samples import SampleWriter
from virtex.tasks.base import Task, TaskData
from virtex.vocabulary import open_tokenizer, with_rule_of
from virtex.zoo.backbones import start_from, whole_architecture
from virtex.zoo.init import open_init
from virtex.zoo.weights_file import save_weights

__all__ = ["PretrainConfig", "check", "parse_pretrain", "pretrain"]

log = logging.getLogger("virtex")
STOPPED = "early_stopping/stopped_at_step"
"""Name in log.jsonl of the step at which early stopping ended a run."""


def pretrain(config: PretrainConfig) -> FitResult:
    """Train the run in the folder `config.out`, resuming it if it exists.

    Raises:
        ConfigError: Options cannot work, or another process trains in the folder.
        DataError: The data are missing or broken.
        CheckpointError: Weights or checkpoints cannot be read.
    """
    config = _with_whole_backbone(config)
    device, folder = choose_device(config.run.device), RunFolder(config.out)
    with distributed.process_group(device):
        config = with_stored_steps(_with_found_layouts(config), folder)
        _check_options(config)
        distributed.on_main(lambda: files.check_out(config.out, is_file=False))
        with folder.locked():
            return _pretrain(config, folder, device, resumed=resumes(config, folder))


def _pretrain(
    config: PretrainConfig, folder: RunFolder, device: torch.device, *, resumed: bool
) -> FitResult:
    start = time.monotonic()
    torch.manual_seed(config.run.seed)  # timm and torch draw initial weights from it
    backbone = Backbone(config.backbone)
    backbone.grid_size(config.image.size)
    init = None if resumed else open_init(config.init)
    if init is not None:
        start_from(init, backbone)
    whole = open_whole(config.data, split="train", needs=config.task.needs)
    assert whole is not None  # only validation data may be missing
    train = part_to_train(whole, config.data)
    validation = open_source(config.data, split="val", needs=config.task.needs)
    if validation is not None and train.categories:
        check_same_classes(train, validation)
    init_sha256 = None if init is None else init.sha256
    run_data = check_data(config, train, validation, resumed=resumed, init_sha256=init_sha256)
    config = replace(config, accept_changed_data=False)  # the next resume has to say it again
    if config.run.num_epochs is not None:
        config = with_steps(config, steps_of(config, len(train)))
        _check_length(config)
    early_stopping = None
    if config.early_stopping.protocol != "none" and distributed.is_main():
        early_stopping = EarlyStopping(config.early_stopping, config.out / "results", device)
    tokenizer, own_tokenizer = None, config.out / "tokenizer.model"
    if config.task.needs.captions:
        tokenizer = (
            _stored_tokenizer(own_tokenizer) if resumed else open_tokenizer(config.tokenizer, whole)
        )
        config = replace(config, tokenizer=with_rule_of(config.tokenizer, tokenizer))
    data = TaskData(config.image, tokenizer, train.categories, len(train))
    task = config.task.build(backbone, data)
    if distributed.is_main():
        folder.write_config(config_files.to_dict(config))
        if tokenizer is not None and not resumed:
            tokenizer.save(own_tokenizer)
        block = before_training(
            config,
            task,
            train,
            validation,
            tokenizer=tokenizer,
            fingerprint=run_data.train,
            device=device,
            step=max(folder.checkpoints.steps(), default=0) if resumed else 0,
        )
        log.info("%s", block)
    steps = _Steps(config, task, data, device, train, validation, early_stopping)
    result = fit(
        task,
        steps.batches,
        folder=folder,
        run=config.run,
        optim=config.optim,
        device=device,
        config=config_files.to_dict(config),
        validate=None if validation is None else steps.validate,
        on_checkpoint=steps.keep_weights,
        is_over=steps.is_over,
    )
    if distributed.is_main() and result.reason != "interrupted":
        seconds = time.monotonic() - start
        log.info("%s", after_training(config, step=result.step, seconds=seconds))
    return result


def _stored_tokenizer(path: Path) -> Tokenizer:
    """Return the vocabulary of an existing run, if need be from its weights file."""
    try:
        return Tokenizer.load(path)
    except CheckpointError as error:
        weights = path.with_name("weights.safetensors")
        found = open_init(str(weights)).tokenizer if weights.is_file() else None
        if found is None:
            raise CheckpointError(
                f"{error}. The run needs its own vocabulary: put a copy of {path} back, or start a "
                "new run folder."
            ) from error
        log.warning("%s; taking the vocabulary of %s", error, weights)
        if distributed.is_main():
            found.save(path)
        return found


def check(config: PretrainConfig) -> None:
    """Check the options as far as possible without reading data.

    Raises:
        ConfigError: Options cannot work, or differ from those of the existing run.
    """
    config = _with_whole_backbone(config)
    config = with_stored_steps(_with_found_layouts(config), RunFolder(config.out))
    _check_options(config)
    resumes(config, RunFolder(config.out))
    with torch.random.fork_rng(devices=[]):
        architecture = Backbone(replace(config.backbone, pretrained=False))
    architecture.grid_size(config.image.size)


def _with_found_layouts(config: PretrainConfig) -> PretrainConfig:
    """Return the options with the layouts that `auto` stands for, which the run records."""
    scored = config.early_stopping
    if scored.protocol != "none":
        scored = replace(scored, data=resolved(scored.data, Needs(labels=True)))
    return replace(config, data=resolved(config.data, config.task.needs), early_stopping=scored)


def _with_whole_backbone(config: PretrainConfig) -> PretrainConfig:
    """Return the config with the architecture that is stored: of a folder, for the image size."""
    backbone = whole_architecture(config.backbone, image_size=config.image.size)
    return replace(config, backbone=backbone)


def _check_options(config: PretrainConfig) -> None:
    """Check the options without building a network."""
    check_batch_size(config.run)
    if config.run.sync_batch_norm and config.task.normalizes_in_groups:
        raise ConfigError(
            "run.sync_batch_norm computes BatchNorm's statistics over all images, and this task "
            "needs those of groups of images, which it shuffles (MoCo, section 3.3). Leave it out."
        )
    if config.run.num_epochs is None:
        _check_length(config)
    check_options(config.data, config.task.needs)
    check_files(config)


def _check_length(config: PretrainConfig) -> None:
    """Check the options that count steps against the length of the run."""
    warmup_steps(config.optim, config.run.num_steps)
    if config.early_stopping.first_step > config.run.num_steps:
        raise ConfigError(
            f"early_stopping.first_step {config.early_stopping.first_step} is after the last step, "
            f"{config.run.num_steps}: no checkpoint would be scored; give a lower one"
        )


class _Steps:
    """Batches, validation and saving of weights, each as a function of the step."""

    def __init__(
        self,
        config: PretrainConfig,
        task: Task,
        data: TaskData,
        device: torch.device,
        train: Source,
        validation: Source | None,
        early_stopping: EarlyStopping | None,
    ) -> None:
        self.config, self.task, self.data, self.device = config, task, data, device
        self.train, self.validation, self.early_stopping = train, validation, early_stopping
        self.samples = None
        if validation is not None and task.writer and config.num_samples and distributed.is_main():
            self.samples = SampleWriter(
                config.out, validation, data.vocabulary, config.image, limit=config.num_samples
            )

    def batches(self, start_step: int) -> TimedBatches:
        """Return this process's part of the training batches from a step on."""
        stream = training_batches(
            self.train,
            self.task.encode,
            self.task.collate,
            seed=self.config.run.seed,
            batch_size=self.config.run.batch_size,
            start_step=start_step,
            share=distributed.share(),
            config=self.config.loader,
        )
        return TimedBatches(stream, num_steps=self.config.run.num_steps, step=start_step)

    def validate(self, step: int) -> dict[str, float]:
        """Return the validation loss and its parts, and write sample captions."""
        assert self.validation is not None
        batches = validation_batches(
            self.validation,
            self.task.encode_validation,
            self.task.collate,
            batch_size=self.config.run.batch_size,
            share=distributed.share(),
            config=self.config.loader,
        )
        numbers = evaluate(self.task, batches, run=self.config.run, device=self.device)
        if self.samples is not None and self.task.writer is not None:
            try:
                self.samples.write(self.task.writer, step=step, device=self.device)
            except DataError as error:
                log.error("step %d has no sample captions: %s Training goes on.", step, error)
        return numbers

    def keep_weights(self, step: int) -> None:
        """Write weights.safetensors, with early stopping only if no checkpoint scored better."""
        if self.early_stopping and not self.early_stopping.is_best(self.task.backbone, step=step):
            return
        save_weights(
            self.config.out / "weights.safetensors",
            self.task.state_dict(),
            config=config_files.to_dict(self.config),
            tokenizer=self.data.tokenizer,
            categories=self.data.categories,
            step=step,
        )

    def is_over(self, step: int) -> bool:
        """Return whether early stopping ends the run at a step, and record that once."""
        if self.early_stopping is None or not self.early_stopping.is_over(step):
            return False
        best = self.early_stopping.best_step()
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
