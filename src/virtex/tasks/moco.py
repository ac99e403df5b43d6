"""Momentum contrast (MoCo) as a pretext task: find an image's other view among many keys.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, section 3
and algorithm 1; with `mlp`, temperature 0.2 and blur it is v2 (Chen et al., 2020). Departures:

- The momentum copy is updated after a step, not before the next forward pass. This is equivalent,
  as the copy initially equals the encoder.
- Keys enter the queue after the step, so that all pieces of an accumulated batch have the same
  negatives. The queue wraps around, so its size need not be a multiple of the batch size.
- Shuffled BatchNorm works on one process too: a batch is encoded in groups, and each image's query
  and key are normalized among different images.

Shapes: B images of this process, G of all processes, D projected size, Q keys in the queue.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from virtex import distributed
from virtex.data.example import Example
from virtex.data.source_options import Needs
from virtex.data.transforms import TrainTransform, normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.projection import (
    Projection,
    Queue,
    momentum_copy,
    similarities,
    update_momentum_copy,
)
from virtex.tasks.base import Batch, Encoded, Task, TaskConfig, TaskData, TaskOutput, stack


@dataclass(frozen=True)
class MocoConfig(TaskConfig):
    """Distinguish a second view of an image from views of others (MoCo), without captions."""

    normalizes_in_groups: ClassVar[bool] = True
    dim: int = 128
    """Size D of the embedding space in which views are compared."""
    queue_size: int = 65_536
    """Number Q of keys of earlier batches, the negatives; keep it below the number of images."""
    momentum: float = 0.999
    """Momentum of the key encoder: the fraction of its weights that it keeps in each step."""
    temperature: float = 0.07
    """Divisor of the cosine similarities; MoCo v2 has 0.2."""
    mlp: bool = False
    """Project with two layers instead of one, as in MoCo v2."""
    group_size: int = 32
    """Number of images that share BatchNorm statistics, as on each of the authors' GPUs. There are
    at least two groups, or the statistics would reveal which key belongs to which query."""

    def __post_init__(self) -> None:
        problems = out_of_range(
            self, {"dim": (1, 2**14), "queue_size": (1, 2**24), "group_size": (1, 2**20)}
        )
        if not 0 <= self.momentum <= 1:
            problems.append(f"momentum {self.momentum} must be from 0 to 1")
        if self.temperature <= 0:
            problems.append(f"temperature {self.temperature} must be above 0")
        raise_all(ConfigError, "the options of MoCo cannot work", problems)

    @property
    def needs(self) -> Needs:
        return Needs()

    def build(self, backbone: Backbone, data: TaskData) -> "Moco":
        return Moco(self, backbone, data)


class Moco(Task):
    """An encoder, its momentum copy, and the queue of the copy's keys."""

    def __init__(self, config: MocoConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        self.config = config
        self.add_module("backbone", backbone)
        self.projection = Projection(backbone.num_channels, config.dim, mlp=config.mlp)
        self.momentum_backbone = momentum_copy(backbone)
        self.momentum_projection = momentum_copy(self.projection)
        self.queue = Queue(config.queue_size, config.dim)
        self.encode = EncodeTwoViews(TrainTransform(data.image))
        self.encode_validation = self.encode
        self.collate = stack

    def forward(self, batch: Batch) -> TaskOutput:
        queries, keys, all_keys = self.queries_and_keys(batch["query_image"], batch["key_image"])
        positives = (queries * keys).sum(1, keepdim=True)
        negatives = similarities(queries, self.queue.keys)  # (B, Q)
        logits = torch.cat([positives, negatives], 1) / self.config.temperature
        loss = cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
        is_found = logits.detach().argmax(1) == 0
        return TaskOutput(loss, {"moco_accuracy": is_found.float().mean()}, {"keys": all_keys})

    def queries_and_keys(self, queried: Tensor, keyed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode two views (B, 3, H, W) of images to (B, D) each; also return all keys (G, D).

        Evaluation does not shuffle: it has no batch statistics, and batches may be unequal.
        """
        if not self.training:
            keys = self._key(keyed)
            return self._query(queried), keys, keys
        num_groups = count_groups(len(queried), self.config.group_size)
        queries = encode_in_groups(self._query, queried, num_groups)
        all_keys = encode_shuffled(self._key, keyed, num_groups)  # (G, D)
        own = all_keys.chunk(distributed.world_size())[distributed.rank()]
        return queries, own, all_keys

    def after_step(self, step: int, kept: Sequence[Mapping[str, Tensor]]) -> None:
        """Update the momentum copy, then the queue."""
        del step
        momentum = self.config.momentum
        update_momentum_copy(self.momentum_backbone, self.backbone, momentum=momentum)
        update_momentum_copy(self.momentum_projection, self.projection, momentum=momentum)
        self.queue.push(torch.cat([piece["keys"] for piece in kept]))

    def _query(self, images: Tensor) -> Tensor:
        return self.projection(self.backbone.pooled(normalize(images)))

    @torch.no_grad()
    def _key(self, images: Tensor) -> Tensor:
        return self.momentum_projection(self.momentum_backbone.pooled(normalize(images)))


@dataclass(frozen=True)
class EncodeTwoViews:
    """Two augmented views of an image."""

    transform: TrainTransform

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        query, _ = self.transform(example, "", generator)
        key, _ = self.transform(example, "", generator)
        return {"query_image": query, "key_image": key}


def count_groups(batch_size: int, group_size: int) -> int:
    """Return the number of groups of at most `group_size` images, two or more over all processes.

    Raises:
        ConfigError: Some group would have a single image.
    """
    fewest = 2 if distributed.world_size() == 1 else 1
    num_groups = max(fewest, math.ceil(batch_size / group_size))
    if batch_size < 2 * num_groups:
        raise ConfigError(
            f"MoCo: {batch_size} images at once on each process in {num_groups} groups leave fewer "
            "than two in one; raise run.batch_size or task.group_size, or lower "
            "run.accumulation_steps."
        )
    return num_groups


def encode_in_groups(encode: Callable[[Tensor], Tensor], images: Tensor, num_groups: int) -> Tensor:
    """Encode images (B, 3, H, W) in groups, each with BatchNorm statistics of its own."""
    return torch.cat([encode(group) for group in images.tensor_split(num_groups)])


@torch.no_grad()
def encode_shuffled(encode: Callable[[Tensor], Tensor], images: Tensor, num_groups: int) -> Tensor:
    """Return the keys (G, D) of all processes' images, encoded in shuffled order (section 3.3).

    Each process encodes its part of an order that the main process draws. Keys are returned in the
    original order, those of process 0 first.
    """
    all_images = distributed.gather(images.contiguous())  # (G, 3, H, W)
    drawn = torch.randperm(len(all_images), device=images.device)
    order = distributed.gather(drawn)[: len(all_images)]
    own = order.chunk(distributed.world_size())[distributed.rank()]
    keys = encode_in_groups(encode, all_images[own], num_groups)  # (B, D)
    return distributed.gather(keys)[order.argsort()]
