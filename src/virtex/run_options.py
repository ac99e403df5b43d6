"""The options of a run: what `auto`, `init` and epochs stand for, and whether they can work."""

from dataclasses import replace

import torch

from virtex import distributed
from virtex.data.lanes import check_lanes, default_num_lanes
from virtex.data.source import resolved
from virtex.data.source_options import check_options as check_source
from virtex.data.source_options import is_manifest
from virtex.data.validation import check_validation
from virtex.engine.optim import unread_problems, warmup_steps
from virtex.engine.precision import FASTER, agreed_precision
from virtex.engine.run import RunFolder, check_batch_size
from virtex.engine.tracking import check_tracker
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.pretrain_config import (
    PretrainConfig,
    check_freezing,
    check_init,
    steps_of,
    with_steps,
)
from virtex.resume import check_files, with_stored_choices
from virtex.zoo.backbones import architecture_to_train, whole_architecture
from virtex.zoo.init import Opened


def settled(config: PretrainConfig, folder: RunFolder) -> PretrainConfig:
    """Return the options with layouts, lanes, and what was settled when the run began, if it has.

    Raises:
        ConfigError: The data have no known layout, or the run began with another length.
    """
    return _with_lanes(with_stored_choices(with_found_layouts(config), folder))


def with_found_layouts(config: PretrainConfig) -> PretrainConfig:
    """Return the options with the layouts that `auto` stands for, which the run records."""
    data = resolved(config.data, config.task.needs)
    return replace(config, data=data, early_stopping=config.early_stopping.with_found_layout())


def _with_lanes(config: PretrainConfig) -> PretrainConfig:
    """Return the options with the number of lanes of a manifest, which the run records."""
    if not is_manifest(config.data) or config.data.num_lanes is not None:
        return config
    num_lanes = default_num_lanes(config.run.batch_size)
    return replace(config, data=replace(config.data, num_lanes=num_lanes))


def with_precision(
    config: PretrainConfig, folder: RunFolder, device: torch.device, backbone: Backbone
) -> PretrainConfig:
    """Return the options with what `auto` stands for on the hardware at hand, for a backbone."""
    so = "the run keeps the precision that it began with" if folder.has_begun() else FASTER
    precision = agreed_precision(
        config.run.precision, device, network=backbone, option="run.precision", so=so
    )
    return replace(config, run=replace(config.run, precision=precision))


def with_whole_backbone(config: PretrainConfig, init: Opened | None) -> PretrainConfig:
    """Return the options with the architecture that is stored, for the image size.

    Args:
        init: What a new run starts from; None where the options name the whole architecture.
    """
    size = config.image.size
    if init is None:
        return replace(config, backbone=whole_architecture(config.backbone, image_size=size))
    return replace(config, backbone=architecture_to_train(init, config.backbone, image_size=size))


def in_steps(config: PretrainConfig, *, num_images: int) -> PretrainConfig:
    """Return the options to store: in steps, and without a consent that the next resume needs."""
    config = replace(config, accept_changed_data=False)
    if config.run.num_epochs is not None:
        config = with_steps(config, steps_of(config, num_images))
        _check_length(config)
    return config


def check_backbone(backbone: Backbone, config: PretrainConfig) -> None:
    """Raise ConfigError if the network cannot take the images, the task or the learning rates."""
    backbone.grid_size(config.image.size)
    config.task.check_backbone(backbone)
    if config.optim.layer_decay != 1:
        backbone.layer_groups()


def check_options(config: PretrainConfig) -> None:
    """Check the options without building a network."""
    check_batch_size(config.run)
    check_tracker(config.run)
    check_freezing(config)
    check_init(config)
    if not RunFolder(config.out).has_begun():  # runs of earlier versions may hold such options
        raise_all(ConfigError, "the optim options cannot work", unread_problems(config.optim))
    if config.run.sync_batch_norm and config.task.normalizes_in_groups:
        raise ConfigError(
            "run.sync_batch_norm computes BatchNorm's statistics over all images, and this task "
            "needs those of groups of images, which it shuffles (MoCo, section 3.3). Leave it out."
        )
    if config.run.num_epochs is None:
        _check_length(config)
    check_source(config.data, config.task.needs)
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
