"""The options of a run: what `auto`, `init` and epochs stand for, and whether they can work."""

import math
from dataclasses import replace

import torch
from torch import nn

from virtex import distributed
from virtex.data.lanes import check_lanes, default_num_lanes
from virtex.data.source import resolved
from virtex.data.source_options import check_options as check_source
from virtex.data.source_options import is_manifest
from virtex.data.validation import check_validation
from virtex.engine.optim import OptimConfig, schedule_problems, unread_problems, warmup_steps
from virtex.engine.precision import FASTER, agreed_precision
from virtex.engine.run import RunFolder, check_batch_size
from virtex.engine.tracking import check_tracker
from virtex.errors import ConfigError, raise_all, raise_each
from virtex.models.backbone import Backbone
from virtex.models.batch_norm import batch_norms
from virtex.pretrain_config import (
    PretrainConfig,
    check_freezing,
    check_init,
    steps_of,
    with_steps,
)
from virtex.resume import check_files, with_stored_choices
from virtex.samples import MOST_SAMPLES
from virtex.zoo.backbones import architecture_to_train, whole_architecture
from virtex.zoo.init import Opened


def settled(config: PretrainConfig, folder: RunFolder) -> PretrainConfig:
    """Return the options with layouts, lanes, and what was settled when the run began, if it has.

    Raises:
        ConfigError: The data have no known layout, or the run began with another length.
    """
    if folder.has_begun():  # on scenes, perhaps, by a recipe that did not refuse them
        config = replace(config, data=replace(config.data, needs_root=False))
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
    num_cells = math.prod(backbone.grid_size(config.image.size))
    config.task.check_backbone(backbone)
    if config.optim.layer_decay != 1:
        backbone.layer_groups()
    norms = trained_batch_norms(backbone, config)
    problems = _of_single_values(config) if norms and num_cells == 1 else []
    if not RunFolder(config.out).has_begun():  # runs of earlier versions may hold such options
        varying = (["BatchNorm"] if norms else []) + random_layers(backbone, config)
        problems += config.task.start_problems(varying)
    raise_all(ConfigError, "the network cannot learn so", problems)


def _of_single_values(config: PretrainConfig) -> list[str]:
    """Return what is wrong if BatchNorm gets a single value of each channel to normalize."""
    run, world_size = config.run, distributed.world_size()
    is_synchronized = run.sync_batch_norm and world_size > 1
    if run.piece_size > world_size or is_synchronized:
        return []
    return [
        f"BatchNorm cannot train on one image at a time (run.batch_size {run.batch_size} among "
        f"{world_size} processes, in run.accumulation_steps {run.accumulation_steps}) with a grid "
        f"of 1 x 1 cells (image.size {config.image.size}): give larger pieces, larger images or "
        "--backbone.frozen_norm"
    ]


def trained_batch_norms(backbone: Backbone, config: PretrainConfig) -> list[nn.Module]:
    """Return the BatchNorm layers that normalize by the statistics of a batch at some step."""
    if config.backbone.frozen_norm:
        return []
    norms = batch_norms(backbone)
    return [norm for norm in norms if norm.training or config.optim.unfreeze_at]


def random_layers(backbone: Backbone, config: PretrainConfig) -> list[str]:
    """Return the kinds of layers that draw random numbers at some step: dropout, drop path."""
    dropout = nn.modules.dropout._DropoutNd
    trained = [one for one in backbone.modules() if one.training or config.optim.unfreeze_at]
    probs = [
        (one, one.p if isinstance(one, dropout) else getattr(one, "drop_prob", 0))
        for one in trained
    ]
    return sorted({type(one).__name__ for one, prob in probs if prob})


def check_options(config: PretrainConfig) -> None:
    """Check the options without building a network.

    Raises:
        ConfigError: All that are wrong.
    """
    checks = [
        _check_batch, _check_tracker, check_freezing, check_init, _check_optim, _check_synchronized,
        _check_length, _check_source, check_files, _check_samples, _check_unread,
    ]  # fmt: skip
    problems = []
    for check in checks:
        try:
            check(config)
        except ConfigError as error:
            problems.append(str(error))
    raise_each(ConfigError, "the options cannot work", problems)


def _check_batch(config: PretrainConfig) -> None:
    run = config.run
    check_batch_size(run)
    num_images = run.batch_size // distributed.world_size()
    problems = config.task.batch_problems(num_images, num_pieces=run.accumulation_steps)
    raise_all(ConfigError, "the task cannot train on such batches", problems)


def _check_tracker(config: PretrainConfig) -> None:
    check_tracker(config.run)


def _check_optim(config: PretrainConfig) -> None:
    if not RunFolder(config.out).has_begun():  # runs of earlier versions may hold such options
        problems = unread_problems(config.optim) + schedule_problems(config.optim)
        raise_all(ConfigError, "the optim options cannot work", problems)


def _check_samples(config: PretrainConfig) -> None:
    has_begun = RunFolder(config.out).has_begun()  # by an earlier version, perhaps with more
    if config.num_samples < 0 or (config.num_samples > MOST_SAMPLES and not has_begun):
        raise ConfigError(
            f"num_samples {config.num_samples} must be 0 to {MOST_SAMPLES:,}: they are captioned "
            "at each validation; `virtex caption` captions any number"
        )


def _check_unread(config: PretrainConfig) -> None:
    """Raise ConfigError for options that are set and that others leave no meaning."""
    if RunFolder(config.out).has_begun():  # runs of earlier versions may hold such options
        return
    run, stopping = config.run, config.early_stopping
    problems = []
    if run.compile == "none" and run.compile_mode != "default":
        problems.append(
            f"run.compile_mode {run.compile_mode} compiles nothing with run.compile none: give "
            "--run.compile task or step, or leave it out"
        )
    if (
        not config.optim.lookahead_steps
        and config.optim.lookahead_alpha != OptimConfig.lookahead_alpha
    ):
        problems.append(
            f"optim.lookahead_alpha {config.optim.lookahead_alpha} means nothing with "
            "optim.lookahead_steps 0: give --optim.lookahead_steps, or leave it out"
        )
    if stopping.protocol != "none" and run.checkpoint_every == 0:
        problems.append(
            f"early_stopping.protocol {stopping.protocol} chooses among checkpoints, and with "
            "run.checkpoint_every 0 there is one: give the steps between two"
        )
    raise_all(ConfigError, "options would do nothing", problems)


def _check_synchronized(config: PretrainConfig) -> None:
    if config.run.sync_batch_norm and config.task.normalizes_in_groups:
        raise ConfigError(
            "run.sync_batch_norm computes BatchNorm's statistics over all images, and this task "
            "needs those of groups of images, which it shuffles (MoCo, section 3.3). Leave it out."
        )


def _check_source(config: PretrainConfig) -> None:
    check_source(config.data, config.task.needs)
    check_validation(config.data)
    if is_manifest(config.data) and config.data.num_lanes is not None:
        check_lanes(
            config.data.num_lanes,
            batch_size=config.run.batch_size,
            num_processes=distributed.world_size(),
        )


def _check_length(config: PretrainConfig) -> None:
    """Check the options that count steps against the length of the run, if that is in steps."""
    if config.run.num_epochs is not None:
        return
    num_steps, problems = config.run.num_steps, []
    try:
        warmup_steps(config.optim, num_steps)
    except ConfigError as error:
        problems.append(str(error))
    if (config.optim.unfreeze_at or 0) >= num_steps:
        problems.append(
            f"optim.unfreeze_at {config.optim.unfreeze_at} must be below the run's {num_steps} "
            "steps: lower it, or leave it out to keep the backbone frozen"
        )
    if config.early_stopping.first_step > num_steps:
        problems.append(
            f"early_stopping.first_step {config.early_stopping.first_step} is after the last step, "
            f"{num_steps}: no checkpoint would be scored; give a lower one"
        )
    raise_each(ConfigError, "the options do not fit the length of the run", problems)
