"""The monitors of a pretraining run, with what is known of it before it begins."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from virtex import config as config_files
from virtex import distributed
from virtex.data.captions import EncodeCaption
from virtex.data.example import Source
from virtex.data.tokenizer import Tokenizer
from virtex.engine.optim import warmup_steps
from virtex.monitors.captions import duplicate_captions
from virtex.monitors.chance import chance_losses
from virtex.monitors.history import Facts
from virtex.monitors.monitors import Monitors
from virtex.pretrain_config import PretrainConfig
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.detection import InstanceSegmentationConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig
from virtex.tasks.self_critical import SelfCriticalConfig

NUM_IMAGES = 2000
"""Images whose captions are read for their frequencies: a second's work."""
NUM_FROM_SHARDS = 500
"""Captions that are read for them from shards, which may be fetched."""
ALL_ALIKE = "Try: captions that say what each image shows; `virtex data check` lists repeated ones."
OTHER_LOSSES = (MocoConfig, PirlConfig, InstanceSegmentationConfig, SelfCriticalConfig)
"""Tasks whose validation loss is not that of training."""


def monitors_of(
    config: PretrainConfig, train: Source, tokenizer: Tokenizer | None
) -> Monitors | None:
    """Return the monitors of a run, in its main process unless `run.monitors` is off."""
    if not (config.run.monitors and distributed.is_main()):
        return None
    indices = range(0, len(train), max(1, len(train) // NUM_IMAGES))
    captions = _sampled(train, indices) if config.task.needs.captions else []
    repeated = duplicate_captions(captions)
    facts = Facts(
        chance=chance_losses(
            config.task,
            batch_size=config.run.batch_size,
            captions=_encoded(config, captions, tokenizer),
            labels=[train.labels(i) for i in indices] if config.task.needs.labels else (),
            num_negatives=_num_negatives(config, len(train)),
        ),
        warmup_steps=warmup_steps(config.optim, config.run.num_steps),
        settled_step=_settled_step(config, len(train)),
        is_comparable=not isinstance(config.task, OTHER_LOSSES)
        and not (isinstance(config.task, ContrastiveConfig) and distributed.world_size() > 1),
        max_grad_norm=config.optim.max_grad_norm,
        follows_norm=config.optim.optimizer == "sgd",
        num_workers=config.loader.num_workers,
    )
    alarms = {} if repeated is None else {"duplicate_captions": f"{repeated}. {ALL_ALIKE}"}
    return Monitors(facts, alarms)


def _sampled(train: Source, indices: Sequence[int]) -> list[str]:
    """Return one caption of each of some images."""
    if train.shard_counts is not None:
        return list(train.sample_captions(NUM_FROM_SHARDS, seed=0))
    return [train.captions(index)[0] for index in indices]


def _encoded(
    config: PretrainConfig, captions: Sequence[str], tokenizer: Tokenizer | None
) -> list[Tensor]:
    """Return captions as training reads them, cut at the most tokens."""
    if tokenizer is None:
        return []
    options = config_files.flat(config_files.to_dict(config.task))
    most = next((value for name, value in options.items() if name.endswith("max_tokens")), None)
    encode = EncodeCaption(tokenizer, max_tokens=most or max(map(len, captions)) + 2)
    return [torch.as_tensor(encode(caption)) for caption in captions]


def _num_negatives(config: PretrainConfig, num_images: int) -> int:
    if not isinstance(config.task, PirlConfig):
        return 0
    return min(config.task.num_negatives, num_images)


def _settled_step(config: PretrainConfig, num_images: int) -> int:
    """Return the step at which a queue holds keys alone, and a bank every image's memory.

    A loss that is the surplus of sampled captions over a baseline says nothing at any step.
    """
    if isinstance(config.task, SelfCriticalConfig):
        return config.run.num_steps
    if isinstance(config.task, MocoConfig):
        return math.ceil(config.task.queue_size / config.run.batch_size)
    if isinstance(config.task, PirlConfig):
        return math.ceil(num_images / config.run.batch_size)
    return 0
