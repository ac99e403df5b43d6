"""Pretraining: the run of one pretext task on a data source."""

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from virtex import config as config_files
from virtex import distributed, files
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.lanes import check_lanes, default_num_lanes
from virtex.data.shards.remote import RemoteShards, open_remote
from virtex.data.source import (
    open_source,
    open_whole,
    part_to_train,
    resolved,
)
from virtex.data.source_options import check_options, is_manifest
from virtex.data.tokenizer import Tokenizer
from virtex.data.validation import check_validation
from virtex.early_stopping import EarlyStopping
from virtex.engine import checkpoint
from virtex.engine.loop import FitResult, fit
from virtex.engine.optim import warmup_steps
from virtex.engine.precision import FASTER, agreed_precision
from virtex.engine.run import RunFolder, check_batch_size, choose_device
from virtex.engine.tf32 import tf32_kept
from virtex.engine.tracking import check_tracker
from virtex.errors import ConfigError
from virtex.first_weights import fill_task, first_backbone
from virtex.models.backbone import Backbone
from virtex.models.backbone_config import FROM_INIT
from virtex.pretrain_config import (
    PretrainConfig,
    check_freezing,
    check_init,
    parse_pretrain,
    steps_of,
    with_steps,
)
from virtex.resume import check_data, check_files, resumes, with_stored_choices
from virtex.run_data import RunData
from virtex.run_monitors import monitors_of
from virtex.run_steps import RunSteps
from virtex.run_summary import after_training, before_training
from virtex.tasks.base import TaskData
from virtex.vocabulary import open_tokenizer, stored_tokenizer, with_rule_of
from virtex.zoo.backbones import architecture_to_train, whole_architecture
from virtex.zoo.init import Opened, open_init, open_init_in_all
from virtex.zoo.own_tokenizer import TOKENIZER_NAME, digest_of, save_own_tokenizer

__all__ = ["PretrainConfig", "check", "check_inputs", "parse_pretrain", "pretrain"]

log = logging.getLogger("virtex")


def pretrain(config: PretrainConfig) -> FitResult:
    """Train the run in the folder `config.out`, resuming it if it exists.

    Raises:
        ConfigError: Options cannot work, or another process trains in the folder.
        DataError: The data are missing or broken.
        CheckpointError: Weights or checkpoints cannot be read.
    """
    device, folder = choose_device(config.run.device), RunFolder(config.out)
    with distributed.process_group(device), tf32_kept():
        init = open_init_in_all("random" if folder.has_begun() else config.init)
        config = _with_lanes(with_stored_choices(_with_found_layouts(config), folder))
        config = _with_whole_backbone(config, folder, init)
        config = _with_precision(config, folder, device)
        _check_options(config)
        distributed.on_main(lambda: files.check_out(config.out, is_file=False))
        with folder.locked(), _remote_shards(config) as remote:
            resumed = resumes(config, folder)
            return _pretrain(config, folder, device, remote, init, resumed=resumed)


def _pretrain(
    config: PretrainConfig,
    folder: RunFolder,
    device: torch.device,
    remote: RemoteShards | None,
    init: Opened,
    *,
    resumed: bool,
) -> FitResult:
    start = time.monotonic()
    backbone = first_backbone(config, init, resumed=resumed)
    _check_backbone(backbone, config)
    data = _open_data(config, remote)
    run_data = check_data(
        config, data.train, data.validation, resumed=resumed, init_sha256=init.sha256
    )
    config = _settled(config, num_images=len(data.train))
    early_stopping = _early_stopping(config, device)
    tokenizer = _vocabulary(config, data.whole, init, resumed=resumed)
    if tokenizer is not None:
        config = replace(config, tokenizer=with_rule_of(config.tokenizer, tokenizer))
        run_data = run_data.with_file(TOKENIZER_NAME, digest_of(tokenizer))
    task_data = TaskData(config.image, tokenizer, data.train.categories, len(data.train))
    task = config.task.build(backbone, task_data)
    first = None if resumed else fill_task(task, init, config)
    new_tokenizer = None if resumed else tokenizer
    distributed.on_main(lambda: _write_beginning(config, folder, run_data, new_tokenizer))
    _write_first(config, folder, first)
    del first  # which holds all weights twice
    if distributed.is_main():
        block = before_training(
            config,
            task,
            data.train,
            data.validation,
            tokenizer=tokenizer,
            fingerprint=run_data.train,
            device=device,
            step=max(folder.checkpoints.steps(), default=0),
        )
        log.info("%s", block)
    steps = RunSteps(
        config, task, task_data, device, data.train, data.validation, early_stopping, remote, folder
    )
    is_scored = config.early_stopping.protocol != "none"
    result = fit(
        task,
        steps.batches,
        folder=folder,
        run=config.run,
        optim=config.optim,
        device=device,
        config=config_files.to_dict(config),
        validate=None if data.validation is None else steps.validate,
        on_checkpoint=steps.keep_best if is_scored else None,
        on_written=None if is_scored else steps.keep_weights,
        is_over=steps.is_over,
        monitors=monitors_of(config, data.train, tokenizer),
    )
    if distributed.is_main() and result.reason != "interrupted":
        seconds = time.monotonic() - start
        log.info("%s", after_training(config, step=result.step, seconds=seconds))
    return result


class _Data(NamedTuple):
    """The data of a run."""

    whole: Source
    """The training data before a part of them is chosen."""
    train: Source
    validation: Source | None


@contextmanager
def _remote_shards(config: PretrainConfig) -> Iterator[RemoteShards | None]:
    """Yield the shards at URLs that the data options name, and end what fetches them."""
    remote = open_remote(
        config.data,
        seed=config.run.seed,
        batch_size=config.run.batch_size,
        share=distributed.share(),
        num_on_node=distributed.num_on_machine(),
    )
    with nullcontext() if remote is None else closing(remote):
        yield remote


def _open_data(config: PretrainConfig, remote: RemoteShards | None) -> _Data:
    needs = config.task.needs
    whole = open_whole(config.data, split="train", needs=needs, remote=remote)
    assert whole is not None  # only validation data may be missing
    train = part_to_train(whole, config.data)
    validation = open_source(config.data, split="val", needs=needs, remote=remote)
    if validation is not None and train.categories:
        check_same_classes(train, validation)
    return _Data(whole, train, validation)


def _vocabulary(
    config: PretrainConfig, whole: Source, init: Opened, *, resumed: bool
) -> Tokenizer | None:
    if not config.task.needs.captions:
        return None
    if config.init_parts == "task" and not resumed:
        return init.tokenizer or open_tokenizer(config.tokenizer, whole)
    return stored_tokenizer(config.out) if resumed else open_tokenizer(config.tokenizer, whole)


def _early_stopping(config: PretrainConfig, device: torch.device) -> EarlyStopping | None:
    """Return the scoring of checkpoints, which the main process alone does."""
    if config.early_stopping.protocol == "none" or not distributed.is_main():
        return None
    return EarlyStopping(config.early_stopping, config.out / "results", device)


def _settled(config: PretrainConfig, *, num_images: int) -> PretrainConfig:
    """Return the options to store: in steps, and without a consent that the next resume needs."""
    config = replace(config, accept_changed_data=False)
    if config.run.num_epochs is not None:
        config = with_steps(config, steps_of(config, num_images))
        _check_length(config)
    return config


def _write_beginning(
    config: PretrainConfig, folder: RunFolder, run_data: RunData, tokenizer: Tokenizer | None
) -> None:
    """Write what a resume needs beside a checkpoint, the vocabulary if it is new."""
    folder.write_config(config_files.to_dict(config))
    if tokenizer is not None:
        save_own_tokenizer(tokenizer, config.out)
    run_data.write(config.out)


def _write_first(config: PretrainConfig, folder: RunFolder, values: dict[str, Any] | None) -> None:
    """Write the checkpoint of a training of other software, from which the run goes on."""
    if values is not None:
        path = folder.checkpoints.at(values["step"])
        stored = {**values, "config": config_files.to_dict(config)}
        distributed.on_main(lambda: checkpoint.save(path, stored))


def check(config: PretrainConfig) -> None:
    """Check the options as far as possible without reading data.

    Raises:
        ConfigError: Options cannot work, or differ from those of the existing run.
    """
    folder = RunFolder(config.out)
    config = _with_lanes(with_stored_choices(_with_found_layouts(config), folder))
    is_named = config.backbone.name != FROM_INIT
    init = open_init("random" if is_named or folder.has_begun() else config.init)
    config = _with_whole_backbone(config, folder, init)
    _check_options(config)
    resumes(config, folder)
    with torch.random.fork_rng(devices=[]):
        _check_backbone(Backbone(replace(config.backbone, pretrained=False)), config)


def check_inputs(config: PretrainConfig) -> None:
    """Open the first weights and the data of a run, but no shards that a manifest lists.

    Raises:
        ConfigError, DataError, CheckpointError: They are missing or broken.
    """
    open_init(config.init)
    if not is_manifest(config.data):
        _open_data(_with_found_layouts(config), None)


def _with_found_layouts(config: PretrainConfig) -> PretrainConfig:
    """Return the options with the layouts that `auto` stands for, which the run records."""
    data = resolved(config.data, config.task.needs)
    return replace(config, data=data, early_stopping=config.early_stopping.with_found_layout())


def _with_lanes(config: PretrainConfig) -> PretrainConfig:
    """Return the options with the number of lanes of a manifest, which the run records."""
    if not is_manifest(config.data) or config.data.num_lanes is not None:
        return config
    num_lanes = default_num_lanes(config.run.batch_size)
    return replace(config, data=replace(config.data, num_lanes=num_lanes))


def _with_precision(
    config: PretrainConfig, folder: RunFolder, device: torch.device
) -> PretrainConfig:
    """Return the options with the precision that `auto` stands for on the hardware at hand."""
    so = "the run keeps the precision that it began with" if folder.has_begun() else FASTER
    precision = agreed_precision(config.run.precision, device, option="run.precision", so=so)
    return replace(config, run=replace(config.run, precision=precision))


def _with_whole_backbone(config: PretrainConfig, folder: RunFolder, init: Opened) -> PretrainConfig:
    """Return the config with the architecture that is stored: of INIT, for the image size."""
    size = config.image.size
    if folder.has_begun():
        return replace(config, backbone=whole_architecture(config.backbone, image_size=size))
    return replace(config, backbone=architecture_to_train(init, config.backbone, image_size=size))


def _check_backbone(backbone: Backbone, config: PretrainConfig) -> None:
    """Raise ConfigError if the network cannot take the images, the task or the learning rates."""
    backbone.grid_size(config.image.size)
    config.task.check_backbone(backbone)
    if config.optim.layer_decay != 1:
        backbone.layer_groups()


def _check_options(config: PretrainConfig) -> None:
    """Check the options without building a network."""
    check_batch_size(config.run)
    check_tracker(config.run)
    check_freezing(config)
    check_init(config)
    if config.run.sync_batch_norm and config.task.normalizes_in_groups:
        raise ConfigError(
            "run.sync_batch_norm computes BatchNorm's statistics over all images, and this task "
            "needs those of groups of images, which it shuffles (MoCo, section 3.3). Leave it out."
        )
    if config.run.num_epochs is None:
        _check_length(config)
    check_options(config.data, config.task.needs)
    check_validation(config.data)
    if is_manifest(config.data) and config.data.num_lanes is not None:
        check_lanes(
            config.data.num_lanes,
            batch_size=config.run.batch_size,
            num_processes=distributed.world_size(),
        )
    check_files(config)


def _check_length(config: PretrainConfig) -> None:
    """Check the options that count steps against the length of the run."""
    warmup_steps(config.optim, config.run.num_steps)
    if (config.optim.unfreeze_at or 0) >= config.run.num_steps:
        raise ConfigError(
            f"optim.unfreeze_at {config.optim.unfreeze_at} must be below the run's "
            f"{config.run.num_steps} steps: lower it, or leave it out to keep the backbone frozen."
        )
    if config.early_stopping.first_step > config.run.num_steps:
        raise ConfigError(
            f"early_stopping.first_step {config.early_stopping.first_step} is after the last step, "
            f"{config.run.num_steps}: no checkpoint would be scored; give a lower one"
        )
