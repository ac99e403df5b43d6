"""Pretraining: the run of one pretext task on a data source."""

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from virtex import config as config_files
from virtex import distributed, files
from virtex.data.caption_sample import drawn_references
from virtex.data.captions import class_words
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.shards.remote import RemoteShards, open_remote
from virtex.data.source import open_source, open_whole, part_to_train
from virtex.data.source_options import is_manifest
from virtex.data.subsets import check_num_captions
from virtex.data.tokenizer import Tokenizer
from virtex.data.validation import check_disjoint
from virtex.earlier_runs import check_new, data_options
from virtex.early_stopping import EarlyStopping
from virtex.engine import checkpoint
from virtex.engine.loop import FitResult, fit
from virtex.engine.run import RunFolder, choose_device
from virtex.engine.tf32 import tf32_kept
from virtex.first_weights import fill_task, first_backbone
from virtex.models.backbone import Backbone
from virtex.models.backbone_config import FROM_INIT
from virtex.pretrain_config import PretrainConfig, parse_pretrain
from virtex.resume import check_data, resumes
from virtex.run_data import RunData
from virtex.run_monitors import monitors_of
from virtex.run_options import (
    check_backbone,
    check_options,
    in_steps,
    settled,
    with_found_layouts,
    with_precision,
    with_whole_backbone,
)
from virtex.run_steps import RunSteps
from virtex.run_summary import after_training, before_training
from virtex.tasks.base import TaskData
from virtex.vocabulary import open_tokenizer, stored_tokenizer, with_rule_of
from virtex.zoo.init import Opened, open_init, open_init_in_all
from virtex.zoo.own_tokenizer import TOKENIZER_NAME, digest_of, save_own_tokenizer

__all__ = ["PretrainConfig", "check", "check_inputs", "parse_pretrain", "pretrain"]

log = logging.getLogger("virtex")

MOST_WITH_REFERENCES = 20_000
"""Images whose captions tell how many images have an n-gram: a few seconds' work."""


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
        config = settled(config, folder)
        config = with_whole_backbone(config, None if folder.has_begun() else init)
        check_options(config)
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
    check_backbone(backbone, config)
    config = with_precision(config, folder, device, backbone)
    whole, train, validation = _open_data(config, remote)
    run_data = check_data(config, train, validation, resumed=resumed, init_sha256=init.sha256)
    config = in_steps(config, num_images=len(train))
    early_stopping = _early_stopping(config, device)
    tokenizer = _vocabulary(config, whole, init, resumed=resumed)
    config, run_data = _with_vocabulary(config, run_data, tokenizer)
    task_data = TaskData(
        config.image,
        tokenizer,
        train.categories,
        len(train),
        references=partial(_references, train),
    )
    task = config.task.build(backbone, task_data)
    first = None if resumed else fill_task(task, init, config)
    _write_beginning(config, folder, run_data, tokenizer=None if resumed else tokenizer)
    _write_first(config, folder, first)
    del first  # which holds all weights twice
    steps = RunSteps(
        config, task, task_data, device, train, validation, early_stopping, remote, folder
    )
    _say_what_begins(steps, run_data, folder)
    _warn_of_milestones(config)
    result = _fit(steps, folder)
    _say_what_ended(config, result, seconds=time.monotonic() - start)
    return result


def _fit(steps: RunSteps, folder: RunFolder) -> FitResult:
    """Train; each checkpoint is scored, or its weights are kept."""
    config = steps.config
    is_scored = config.early_stopping.protocol != "none"
    return fit(
        steps.task,
        steps.batches,
        folder=folder,
        run=config.run,
        optim=config.optim,
        device=steps.device,
        config=config_files.to_dict(config),
        validate=None if steps.validation is None else steps.validate,
        on_checkpoint=steps.keep_best if is_scored else None,
        on_written=None if is_scored else steps.keep_weights,
        is_over=steps.is_over,
        monitors=monitors_of(config, steps.train, steps.data.tokenizer),
    )


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
    needs, data = config.task.needs, data_options(config)
    whole = open_whole(data, split="train", needs=needs, remote=remote)
    assert whole is not None  # only validation data may be missing
    several = "the first captions of several keys"
    check_new(config, several, partial(check_num_captions, whole, data.num_captions))
    train = part_to_train(whole, data)
    validation = open_source(data, split="val", needs=needs, remote=remote)
    if validation is not None:
        what = "validation images of its training data"
        check_new(config, what, partial(check_disjoint, train, validation))
        if train.categories:
            check_same_classes(train, validation)
    return _Data(whole, train, validation)


def _vocabulary(
    config: PretrainConfig, whole: Source, init: Opened, *, resumed: bool
) -> Tokenizer | None:
    reads_names = config.task.reads_class_names
    if not (config.task.needs.captions or reads_names):
        return None
    if resumed:
        return stored_tokenizer(config.out)
    if config.init_parts == "task" and init.tokenizer is not None:
        return init.tokenizer
    names = [class_words(name) for name in whole.categories] if reads_names else []
    return open_tokenizer(config.tokenizer, whole, names=names)


def _references(train: Source) -> list[tuple[str, ...]]:
    """Return captions of the training images, which the main process reads."""
    return distributed.on_main(lambda: drawn_references(train, most=MOST_WITH_REFERENCES))


def _early_stopping(config: PretrainConfig, device: torch.device) -> EarlyStopping | None:
    """Return the scoring of checkpoints, which the main process alone does."""
    if config.early_stopping.protocol == "none" or not distributed.is_main():
        return None
    return EarlyStopping(config.early_stopping, config.out / "results", device)


def _with_vocabulary(
    config: PretrainConfig, run_data: RunData, tokenizer: Tokenizer | None
) -> tuple[PretrainConfig, RunData]:
    """Return the options with the rule of the vocabulary, and the run's data with its digest."""
    if tokenizer is None:
        return config, run_data
    config = replace(config, tokenizer=with_rule_of(config.tokenizer, tokenizer))
    return config, run_data.with_file(TOKENIZER_NAME, digest_of(tokenizer))


def _write_beginning(
    config: PretrainConfig, folder: RunFolder, run_data: RunData, *, tokenizer: Tokenizer | None
) -> None:
    """Write what a resume needs beside a checkpoint, the vocabulary if it is new."""

    def write() -> None:
        folder.write_config(config_files.to_dict(config))
        if tokenizer is not None:
            save_own_tokenizer(tokenizer, config.out)
        run_data.write(config.out)

    distributed.on_main(write)


def _write_first(config: PretrainConfig, folder: RunFolder, values: dict[str, Any] | None) -> None:
    """Write the checkpoint of a training of other software from which the run goes on, if any."""
    if values is not None:
        path = folder.checkpoints.at(values["step"])
        stored = {**values, "config": config_files.to_dict(config)}
        distributed.on_main(lambda: checkpoint.save(path, stored))


def _say_what_begins(steps: RunSteps, run_data: RunData, folder: RunFolder) -> None:
    """Log a block of facts about the run."""
    if distributed.is_main():
        block = before_training(
            steps.config,
            steps.task,
            steps.train,
            steps.validation,
            tokenizer=steps.data.tokenizer,
            fingerprint=run_data.train,
            device=steps.device,
            step=max(folder.checkpoints.steps(), default=0),
        )
        log.info("%s", block)


def _warn_of_milestones(config: PretrainConfig) -> None:
    """Warn of milestones that the run does not reach, as where a recipe is tried for few steps."""
    beyond = [step for step in config.optim.milestones if step >= config.run.num_steps]
    if beyond and distributed.is_main():
        log.warning(
            "optim.milestones %s lie beyond the %d steps of this run: the learning rate will not "
            "fall there",
            beyond,
            config.run.num_steps,
        )


def _say_what_ended(config: PretrainConfig, result: FitResult, *, seconds: float) -> None:
    """Log what a complete run has written."""
    if distributed.is_main() and result.reason != "interrupted":
        log.info("%s", after_training(config, step=result.step, seconds=seconds))


def check(config: PretrainConfig) -> None:
    """Check the options as far as possible without reading data, or weights whose network is named.

    Raises:
        ConfigError: Options cannot work, or differ from those of the existing run.
    """
    folder = RunFolder(config.out)
    config = settled(config, folder)
    from_init = config.backbone.name == FROM_INIT and not folder.has_begun()
    config = with_whole_backbone(config, open_init(config.init) if from_init else None)
    check_options(config)
    resumes(config, folder)
    with torch.random.fork_rng(devices=[]):
        check_backbone(Backbone(replace(config.backbone, pretrained=False)), config)


def check_inputs(config: PretrainConfig) -> None:
    """Open the first weights and the data of a run, but no shards that a manifest lists.

    Raises:
        ConfigError, DataError, CheckpointError: They are missing or broken.
    """
    open_init(config.init)
    if not is_manifest(config.data):
        _open_data(with_found_layouts(config), None)
