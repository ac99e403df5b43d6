"""What a new run starts from: INIT's backbone, its whole task, or the training in its file."""

from dataclasses import replace
from typing import Any

import torch

from virtex.errors import CheckpointError, ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.models.state_dict import check_finite, load_strictly
from virtex.models.transformer_sizes import TransformerSizes
from virtex.pretrain_config import PretrainConfig
from virtex.tasks.base import Task
from virtex.zoo.backbones import start_from
from virtex.zoo.init import Opened
from virtex.zoo.released import load_released_task
from virtex.zoo.released_resume import released_checkpoint

NOT_SAME_TASK = (
    "init_parts task needs a run of the same task and sizes: set these as in its config.yaml, or "
    "leave init_parts out."
)
"""Remedy for an INIT of another task."""


def first_backbone(config: PretrainConfig, init: Opened, *, resumed: bool) -> Backbone:
    """Return the backbone with the weights of an INIT; a resumed run gets its checkpoint's.

    Raises:
        CheckpointError: INIT does not fit.
        ConfigError: INIT has not the parts that are to be initialized.
    """
    torch.manual_seed(config.run.seed)  # timm and torch draw initial weights from it
    if resumed:  # no published weights, which this machine may be unable to fetch
        backbone = Backbone(replace(config.backbone, pretrained=False))
        backbone.config = config.backbone
        return backbone
    backbone = Backbone(config.backbone)
    _check_parts(config, init)
    start_from(init, backbone)
    return backbone


def fill_task(task: Task, init: Opened, config: PretrainConfig) -> dict[str, Any] | None:
    """Load the parts of a new run's task that INIT has beside the backbone.

    Returns:
        The values of a checkpoint to go on from, if INIT is a training that does.

    Raises:
        CheckpointError: INIT does not fit the task.
        ConfigError: Options differ from those of a training that is to go on.
    """
    if config.init_parts == "backbone":
        return None
    if config.init_parts == "training":
        return released_checkpoint(task, init, run=config.run, optim=config.optim)
    if init.kind == "run":
        load_strictly(
            task, task.starting_state(init.state), subject=init.path, remedy=NOT_SAME_TASK
        )
    else:
        load_released_task(task, init)
    check_finite(task.state_dict(), init.path)
    return None


def _check_captioner(config: PretrainConfig, init: Opened) -> None:
    """Raise ConfigError if a task that writes captions is to begin with one that writes none."""
    held = init.trained.task
    if not (held.writes_captions or isinstance(held, type(config.task))):
        raise ConfigError(
            f"init_parts task needs a captioner, and {config.init} was trained with "
            f"{type(held).__name__.removesuffix('Config')}, which writes no captions. Give a run "
            "of bicaptioning, captioning or cappa, or leave init_parts out to start from its "
            "backbone alone."
        )


def _check_functions(config: PretrainConfig, init: Opened) -> None:
    """Raise ConfigError if options that no shape depends on are not those of the weights."""
    held, wanted = vars(init.trained.task), vars(config.task)
    problems = [
        f"task.{part}.{option} is {value}, and {config.init} was trained with {was}"
        for part, transformer in wanted.items()
        if isinstance(transformer, TransformerSizes)
        and isinstance(held.get(part), type(transformer))
        for option, value in transformer.function().items()
        if (was := held[part].function()[option]) != value
    ]
    raise_all(ConfigError, NOT_SAME_TASK.removesuffix("."), problems)


def _check_parts(config: PretrainConfig, init: Opened) -> None:
    """Raise an error unless INIT has the parts, and a vocabulary of one origin."""
    parts, vocabulary = config.init_parts, config.tokenizer.tokenizer_path
    if parts == "backbone":
        return
    if init.kind == "run" and parts == "training":
        raise CheckpointError(
            f"init_parts training goes on with a training checkpoint of the released code, and "
            f"{config.init} is a run of this package. Resume it by `virtex pretrain --out` and its "
            "folder, or give --init_parts task to start a new run from its weights."
        )
    if init.kind == "run" and vocabulary is not None:
        raise ConfigError(
            "init_parts task takes the vocabulary of init, and tokenizer.tokenizer_path names "
            "another: leave one of them out"
        )
    if init.kind == "run" and config.task.writes_captions:
        _check_captioner(config, init)
    if init.kind == "run":
        _check_functions(config, init)
    if init.kind == "foreign" and config.task.needs.captions and vocabulary is None:
        raise ConfigError(
            f"init_parts {parts} needs the vocabulary with which {config.init} was trained, since "
            "the file holds none: give --tokenizer.tokenizer_path, the .model file that the "
            "released code was given as DATA.TOKENIZER_MODEL (coco_10k.model), or leave init_parts "
            "out to start from its backbone alone"
        )
