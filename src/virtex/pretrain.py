"""Pretraining: the run of one pretext task on a data source."""

import logging
from dataclasses import replace

import torch

from virtex import config as config_files
from virtex import distributed, files
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.loader import TrainingBatches, training_batches, validation_batches
from virtex.data.source import open_source, open_whole, part_to_train
from virtex.data.source_options import check_options
from virtex.data.tokenizer import Tokenizer
from virtex.early_stopping import EarlyStopping
from virtex.engine.loop import FitResult, evaluate, fit
from virtex.engine.optim import warmup_steps
from virtex.engine.run import RunFolder, check_batch_size, choose_device
from virtex.errors import ConfigError, DataError, raise_all
from virtex.models.backbone import Backbone
from virtex.options.command_line import load
from virtex.pretrain_config import PretrainConfig, parse_pretrain
from virtex.samples import SampleWriter
from virtex.tasks.base import Task, TaskData
from virtex.vocabulary import open_tokenizer, with_rule_of
from virtex.zoo.backbones import start_from
from virtex.zoo.init import open_init
from virtex.zoo.weights_file import save_weights

__all__ = ["PretrainConfig", "check", "parse_pretrain", "pretrain"]

log = logging.getLogger("virtex")

FREE = (
    "out", "num_samples", "loader.", "early_stopping.batch_size", "early_stopping.num_workers",
    "run.log_every", "run.validate_every", "run.checkpoint_every", "run.keep_", "run.tensorboard",
    "tokenizer.original",
)  # fmt: skip
"""Options, or prefixes of options, that may change on resume: the weights stay the same."""


def pretrain(config: PretrainConfig) -> FitResult:
    """Train the run in the folder `config.out`, resuming it if it exists.

    Raises:
        ConfigError: Options cannot work, or another process trains in the folder.
        DataError: The data are missing or broken.
        CheckpointError: Weights or checkpoints cannot be read.
    """
    device, folder = choose_device(config.run.device), RunFolder(config.out)
    with distributed.process_group(device):
        _check_options(config)
        distributed.on_main(lambda: files.check_out(config.out, is_file=False))
        with folder.locked():
            return _pretrain(config, folder, device, resumes=_resumes(config, folder))


def _pretrain(
    config: PretrainConfig, folder: RunFolder, device: torch.device, *, resumes: bool
) -> FitResult:
    torch.manual_seed(config.run.seed)  # timm and torch draw initial weights from it
    backbone = Backbone(config.backbone)
    backbone.grid_size(config.image.size)
    if not resumes:
        start_from(open_init(config.init), backbone)
    whole = open_whole(config.data, split="train", needs=config.task.needs)
    assert whole is not None  # only validation data may be missing
    train = part_to_train(whole, config.data)
    validation = open_source(config.data, split="val", needs=config.task.needs)
    if validation is not None and train.categories:
        check_same_classes(train, validation)
    early_stopping = None
    if config.early_stopping.protocol != "none" and distributed.is_main():
        early_stopping = EarlyStopping(config.early_stopping, config.out / "results", device)
    tokenizer, own_tokenizer = None, config.out / "tokenizer.model"
    if config.task.needs.captions:
        tokenizer = (
            Tokenizer.load(own_tokenizer) if resumes else open_tokenizer(config.tokenizer, whole)
        )
        config = replace(config, tokenizer=with_rule_of(config.tokenizer, tokenizer))
    data = TaskData(config.image, tokenizer, train.categories, len(train))
    task = config.task.build(backbone, data)
    if distributed.is_main():
        folder.write_config(config_files.to_dict(config))
        if tokenizer is not None and not resumes:
            tokenizer.save(own_tokenizer)
    steps = _Steps(config, task, data, device, train, validation, early_stopping)
    return fit(
        task,
        steps.batches,
        folder=folder,
        run=config.run,
        optim=config.optim,
        device=device,
        config=config_files.to_dict(config),
        validate=None if validation is None else steps.validate,
        on_checkpoint=steps.keep_weights,
    )


def check(config: PretrainConfig) -> None:
    """Check the options as far as possible without reading data.

    Raises:
        ConfigError: Options cannot work, or differ from those of the existing run.
    """
    _check_options(config)
    _resumes(config, RunFolder(config.out))
    with torch.random.fork_rng(devices=[]):
        architecture = Backbone(replace(config.backbone, pretrained=False))
    architecture.grid_size(config.image.size)


def _check_options(config: PretrainConfig) -> None:
    """Check the options without building a network."""
    check_batch_size(config.run)
    if config.run.sync_batch_norm and config.task.normalizes_in_groups:
        raise ConfigError(
            "run.sync_batch_norm computes BatchNorm's statistics over all images, and this task "
            "needs those of groups of images, which it shuffles (MoCo, section 3.3). Leave it out."
        )
    warmup_steps(config.optim, config.run.num_steps)
    check_options(config.data, config.task.needs)


def _resumes(config: PretrainConfig, folder: RunFolder) -> bool:
    """Return whether there is a run to resume.

    Raises:
        ConfigError: The run's options differ in a way that affects the weights; names each.
    """
    if not folder.has_begun():
        return False
    stored = load(folder.config_path)
    earlier = config_files.from_dict(PretrainConfig, stored)
    before, now = (
        config_files.flat(config_files.to_dict(options)) for options in (earlier, config)
    )
    names = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    if "task.name" in names:  # each task has options of its own
        names = {name for name in names if name == "task.name" or not name.startswith("task.")}
    changed = [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(names)
        if not name.startswith(FREE)
    ]
    raise_all(
        ConfigError,
        f"{config.out} holds a run with other options (give the same to resume it, or another "
        "--out to start a new run)",
        changed,
    )
    return True


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

    def batches(self, start_step: int) -> TrainingBatches:
        """Return this process's part of the training batches from a step on."""
        return training_batches(
            self.train,
            self.task.encode,
            self.task.collate,
            seed=self.config.run.seed,
            batch_size=self.config.run.batch_size,
            start_step=start_step,
            share=distributed.share(),
            config=self.config.loader,
        )

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
