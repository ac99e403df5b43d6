"""Captioning in which most captions are predicted in parallel, all tokens at once (CapPa).

Tschannen et al., "Image Captioners Are Scalable Vision Learners Too", NeurIPS 2023, section 3. The
input of a caption that is predicted in parallel is [MASK] throughout, without a causal mask: a
token is predicted from its position and the image alone, so the backbone must know it. The other
captions are predicted token by token, as in forward captioning. As in the authors' code, the loss
is the mean over captions of each one's mean over its tokens: a long caption weighs as much as a
short one.

Departure: padding is hidden from a parallel caption too, so its decoder knows the number of tokens.
The released code attends to a fixed number of positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from virtex.data.captioned import collate_captioned
from virtex.data.example import Example
from virtex.data.transforms import normalize
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.models.packing import Packing, length_multiple, pack_readings
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import (
    Batch,
    Encode,
    Encoded,
    TaskData,
    TaskOutput,
    WithSmoothingConfig,
    mean_loss,
)
from virtex.tasks.grid_share import WithGridShare, WithGridShareConfig
from virtex.tokens import MASK_ID, PAD_ID


@dataclass(frozen=True)
class CapPaConfig(WithSmoothingConfig, WithGridShareConfig):
    """Predict captions left to right, and most of them all tokens at once from the image alone."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    parallel_share: float = 0.75
    """Probability that a caption is predicted in parallel; 0 is forward captioning."""

    def __post_init__(self) -> None:
        problems = self.smoothing_problems() + self.grid_problems()
        if not 0 <= self.parallel_share < 1:
            problems.append(
                f"parallel_share {self.parallel_share} must be from 0 to below 1: some captions "
                "have to be read left to right, or none could be written"
            )
        raise_all(ConfigError, "the options of CapPa cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "CapPa":
        return CapPa(self, backbone, data)


class CapPa(WithGridShare):
    """A forward captioner that predicts some captions in parallel."""

    def __init__(self, config: CapPaConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__(config.head, backbone, data, label_smoothing=config.label_smoothing)
        self.parallel_prob = config.parallel_share
        self.encode = EncodeParallel(self.encode, self.parallel_prob)
        self.encode_validation = EncodeParallel(self.encode_validation, 0)
        self.collate = partial(collate, multiple=length_multiple(config.head.max_tokens))
        self.counts = ("num_of_kinds",)
        self.dynamic = {"rows": 0, "inputs": 1, "targets": 1}
        self.thin(config.grid_share, data)

    def forward(self, batch: Batch) -> TaskOutput:
        """Return the mean over captions of both kinds of each caption's mean over its tokens.

        Validation predicts each caption in both ways; its loss is the sum of the two means,
        weighted by the probabilities of training: the expectation of the training loss.
        """
        grid = self.seen(self.backbone(normalize(batch["image"])), batch)
        return self._train(grid, batch) if self.training else self._validate(grid, batch)

    def token_losses(self, grid: Tensor, batch: Batch, parallel: Tensor) -> Tensor:
        """Return the losses (P,) of the packed tokens after the first of each caption."""
        packing = Packing(batch["rows"], batch["places"])
        inputs = batch["inputs"][0].masked_fill(parallel[packing.captions], MASK_ID)
        return self.captioner.token_losses(
            grid, inputs, batch["targets"][0], packing.seeing_all(parallel)
        )

    def caption_losses(self, grid: Tensor, batch: Batch, parallel: Tensor) -> Tensor:
        """Return each caption's loss (B,), the mean over its tokens after the first."""
        captions = Packing(batch["rows"], batch["places"]).captions
        losses = self.token_losses(grid, batch, parallel)
        none = losses.new_zeros(len(parallel))
        sums = none.index_add(0, captions, losses)
        is_target = (batch["targets"][0] != PAD_ID).to(losses.dtype)
        return sums / none.index_add(0, captions, is_target).clamp(min=1)

    def _train(self, grid: Tensor, batch: Batch) -> TaskOutput:
        losses = self.caption_losses(grid, batch, batch["parallel"])
        means = means_of_kinds(losses.detach(), batch["parallel"], batch["num_of_kinds"])
        kinds = ("autoregressive", "parallel") if self.parallel_prob else ("autoregressive",)
        return TaskOutput(losses.mean(), dict(zip(kinds, means, strict=False)))

    def _validate(self, grid: Tensor, batch: Batch) -> TaskOutput:
        probs = {"autoregressive": 1 - self.parallel_prob, "parallel": self.parallel_prob}
        logs = {}
        for kind, prob in probs.items():
            if prob:
                parallel = torch.full_like(batch["parallel"], kind == "parallel")
                logs[kind] = self.caption_losses(grid, batch, parallel).mean()
        return TaskOutput(torch.stack([probs[kind] * logs[kind] for kind in logs]).sum(), logs)


def means_of_kinds(losses: Tensor, parallel: Tensor, num_of_kinds: Tensor) -> Tensor:
    """Return the mean loss (2,) of captions predicted one by one, and of those in parallel.

    A step without captions of one kind, one of 10,000 steps of 32, gives that of the other kind, as
    NaN ends a run.

    Args:
        losses: (B,), of each caption.
        parallel: (B,) bool.
        num_of_kinds: (2,), the captions of each kind; see `Task.counts`.
    """
    of_kinds = torch.stack([losses.masked_fill(parallel, 0), losses.masked_fill(~parallel, 0)])
    return torch.where(num_of_kinds > 0, mean_loss(of_kinds, num_of_kinds), losses.mean())


@dataclass(frozen=True)
class EncodeParallel:
    """An image, its caption, and whether the caption is predicted in parallel."""

    encode: Encode
    parallel_prob: float

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        return {**encoded, "parallel": torch.tensor(generator.random() < self.parallel_prob)}


def collate(encoded: Sequence[Encoded], *, multiple: int) -> Batch:
    """Collate images and the tensors of forward `Readings`, with `parallel` (B,) bool.

    `num_of_kinds` (2,) is the number of captions that are not, and that are, predicted in parallel.
    """
    captioned = collate_captioned(encoded)
    readings = pack_readings(
        captioned["tokens"], captioned["lengths"], ["forward"], multiple=multiple
    )
    parallel = torch.stack([item["parallel"] for item in encoded])
    num_of_kinds = torch.stack([~parallel, parallel]).sum(1).float()
    values = {"parallel": parallel, "num_of_kinds": num_of_kinds}
    return {"image": captioned["image"], **readings._asdict(), **values}
