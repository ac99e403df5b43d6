"""Momentum contrast (MoCo) as a pretext task: find an image's other view among many keys.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, section 3
and algorithm 1; with `mlp`, temperature 0.2 and blur it is v2 (Chen et al., 2020). Departures:

- The momentum copy is updated after a step, not before the next forward pass. This is equivalent,
  as the copy initially equals the encoder.
- Keys enter the queue after the step, so that all pieces of an accumulated batch have the same
  negatives. The queue wraps around, so its size need not be a multiple of the batch size.
- Shuffled BatchNorm works on one process too: images are encoded in groups, and each image's query
  and key are normalized among different images. Keys are encoded before the first piece of a step,
  in an order that depends on seed and step alone.
- BatchNorm's running statistics move once a step, to the mean over all groups.

If `group_size` divides the number of images of each piece, nothing depends on the number of pieces
and processes.

Shapes: B images of a piece, G of all pieces and processes, D projected size, Q keys in the queue.
"""

import math
from collections.abc import Mapping, Sequence
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
from virtex.models.batch_norm import GroupStatistics
from virtex.models.projection import (
    Projection,
    Queue,
    momentum_copy,
    similarities,
    update_momentum_copy,
)
from virtex.tasks.base import Batch, Encoded, Task, TaskConfig, TaskData, TaskOutput, stack

SAME = 1e-6
"""Difference of similarities, in float32, of features that are equal."""


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
    """Number of images that share BatchNorm statistics, as on each of the authors' GPUs. Keys are
    in at least two groups, or the statistics would reveal which key belongs to which query."""

    def __post_init__(self) -> None:
        problems = out_of_range(
            self, {"dim": (1, 2**14), "queue_size": (1, 2**24), "group_size": (2, 2**20)}
        )
        if not 0 <= self.momentum <= 1:
            problems.append(f"momentum {self.momentum} must be from 0 to 1")
        if self.temperature <= 0:
            problems.append(f"temperature {self.temperature} must be above 0")
        raise_all(ConfigError, "the options of MoCo cannot work", problems)

    @property
    def needs(self) -> Needs:
        return Needs()

    def batch_problems(self, num_images: int, *, num_pieces: int) -> list[str]:
        try:
            count_groups(num_images, self.group_size, fewest=fewest_groups())
            count_groups(num_images // num_pieces, self.group_size)
        except ConfigError as error:
            return [str(error)]
        return []

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
        self.query_statistics = GroupStatistics(self.backbone)
        self.key_statistics = GroupStatistics(self.momentum_backbone)
        self.encode = EncodeTwoViews(TrainTransform(data.image))
        self.encode_validation = self.encode
        self.collate = stack

    @torch.no_grad()
    def prepare_step(self, pieces: list[Batch], *, seed: int) -> list[Batch]:
        """Encode the keys of a step, in groups of a shuffled order of all images (section 3.3).

        Each process encodes its part of that order; each piece gets the keys of its own images.
        """
        images = torch.cat([piece["key_image"] for piece in pieces])
        everyone = distributed.gather(images.contiguous())  # (G, 3, H, W)
        order = shuffled(len(everyone), seed=seed, device=images.device)
        self.query_statistics.begin()
        self.key_statistics.begin()
        keys, statistics = self.encode_keys(everyone[own_part(order)])
        self.key_statistics.update(distributed.mean(statistics))
        keys = own_part(distributed.gather(keys)[order.argsort()])
        parts = keys.chunk(len(pieces))
        return [{**piece, "keys": part} for piece, part in zip(pieces, parts, strict=True)]

    def encode_keys(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys of this process's part of the images in groups, and their statistics."""
        num_groups = count_groups(len(images), self.config.group_size, fewest=fewest_groups())
        return self.key_statistics.encode(self._key, images.tensor_split(num_groups))

    def encode_queries(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries (B, D) of images in groups, and the groups' mean statistics."""
        num_groups = count_groups(len(images), self.config.group_size)
        return self.query_statistics.encode(self._query, images.tensor_split(num_groups))

    def forward(self, batch: Batch) -> TaskOutput:
        if self.training:
            queries, statistics = self.encode_queries(batch["query_image"])
            keys = batch["keys"]
            kept = {"keys": keys, "statistics": statistics}
        else:  # no batch statistics, so no groups
            queries, keys = self._query(batch["query_image"]), self._key(batch["key_image"])
            kept = {}
        positives = (queries * keys).sum(1, keepdim=True)
        negatives = similarities(queries, self.queue.keys)  # (B, Q)
        logits = torch.cat([positives, negatives], 1) / self.config.temperature
        loss = cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
        lead = (positives - negatives.amax(1, keepdim=True)).detach()
        is_found = lead > SAME  # equal features find nothing
        return TaskOutput(loss, {"moco_accuracy": is_found.float().mean()}, kept)

    def after_step(self, step: int, kept: Sequence[Mapping[str, Tensor]]) -> None:
        """Update the momentum copy, the queue, and the encoder's running statistics."""
        del step
        momentum = self.config.momentum
        update_momentum_copy(self.momentum_backbone, self.backbone, momentum=momentum)
        update_momentum_copy(self.momentum_projection, self.projection, momentum=momentum)
        self.queue.push(distributed.gather(torch.cat([piece["keys"] for piece in kept])))
        statistics = torch.stack([piece["statistics"] for piece in kept]).mean(0)
        self.query_statistics.update(distributed.mean(statistics))

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


def fewest_groups() -> int:
    """Return the least number of groups of keys on a process, so that there are two in all."""
    return 2 if distributed.world_size() == 1 else 1


def count_groups(num_images: int, group_size: int, *, fewest: int = 1) -> int:
    """Return the number of groups of at most `group_size` images, and at least `fewest`.

    Raises:
        ConfigError: Some group would have a single image.
    """
    num_groups = max(fewest, math.ceil(num_images / group_size))
    if num_images < 2 * num_groups:
        or_groups = " or task.group_size" if num_groups > fewest else ""
        raise ConfigError(
            f"MoCo: {num_images} images at once on each process in {num_groups} groups leave fewer "
            f"than two in one; raise run.batch_size{or_groups}, or lower run.accumulation_steps."
        )
    return num_groups


def shuffled(number: int, *, seed: int, device: torch.device) -> Tensor:
    """Return a permutation (number,), drawn from a seed."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randperm(number, device=device, generator=generator)


def own_part(values: Tensor) -> Tensor:
    """Return this process's part of (G, ...), those of process 0 first."""
    return values.chunk(distributed.world_size())[distributed.rank()]
