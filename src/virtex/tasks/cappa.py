"""Captioning where most captions are predicted in parallel, all tokens at once (CapPa).

Tschannen et al., "Image Captioners Are Scalable Vision Learners Too", NeurIPS 2023, section 3. A
caption that is predicted in parallel is read as [MASK] throughout, without a causal mask: nothing
but the image and its position tells a token, so that the backbone has to know it. The others are
read token by token, as in forward captioning.

Departure: padding stays hidden from a parallel caption too, so that its decoder knows how many
tokens to tell. The released code lets it see a fixed number of places.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from virtex.data.captioned import CaptionedForTraining, CaptionedForValidation, collate_captioned
from virtex.data.captions import EncodeCaption
from virtex.data.example import Example
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, Encode, Encoded, Task, TaskConfig, TaskData, TaskOutput
from virtex.tokens import MASK_ID


@dataclass(frozen=True)
class CapPaConfig(TaskConfig):
    """Predict captions left to right, and most of them all tokens at once from the image alone."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    parallel_share: float = 0.75
    """Probability that a caption is predicted in parallel; 0 is forward captioning."""

    def __post_init__(self) -> None:
        if not 0 <= self.parallel_share < 1:
            raise ConfigError(
                f"parallel_share {self.parallel_share} must be from 0 to below 1: some captions "
                "have to be read left to right, or none could be written"
            )

    def build(self, backbone: Backbone, data: TaskData) -> "CapPa":
        return CapPa(self, backbone, data)


class CapPa(Task):
    """A forward captioner of which some captions ask for all tokens at once."""

    def __init__(self, config: CapPaConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        self.parallel_share = config.parallel_share
        encode_caption = EncodeCaption(data.vocabulary, max_tokens=config.head.max_tokens)
        self.captioner = Captioner(
            backbone, config.head, data.vocabulary.vocab_size, bidirectional=False
        )
        self.encode = EncodeParallel(
            CaptionedForTraining(TrainTransform(data.image), encode_caption), config.parallel_share
        )
        self.encode_validation = EncodeParallel(
            CaptionedForValidation(ValidationTransform(data.image), encode_caption), 0
        )
        self.collate = collate

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.captioner.backbone

    @property
    def writer(self) -> Captioner:
        return self.captioner

    def forward(self, batch: Batch) -> TaskOutput:
        """The mean over all tokens, of both kinds of captions.

        In validation each caption is predicted in both ways, and the loss is the sum of the two
        means, weighted by their shares in training: what the training loss is in expectation.
        """
        grid = self.backbone(normalize(batch["image"]))
        if self.training:
            return self._train(grid, batch)
        return self._validate(grid, batch)

    def token_losses(self, grid: Tensor, batch: Batch, parallel: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (M,) of all tokens after the first, and the caption (M,) each belongs to."""
        tokens = batch["tokens"]
        inputs = tokens[:, :-1].masked_fill(parallel[:, None], MASK_ID)
        return self.captioner.token_losses(
            grid, inputs, tokens[:, 1:], lengths=batch["lengths"] - 1, noncausal=parallel
        )

    def no_weight_decay(self) -> set[str]:
        return {f"captioner.{name}" for name in self.captioner.no_weight_decay()}

    def _train(self, grid: Tensor, batch: Batch) -> TaskOutput:
        losses, captions = self.token_losses(grid, batch, batch["parallel"])
        loss = losses.sum() / max(len(losses), 1)
        in_parallel = batch["parallel"][captions]  # (M,)
        logs = {"autoregressive": masked_mean(losses.detach(), ~in_parallel)}
        if self.parallel_share:
            logs["parallel"] = masked_mean(losses.detach(), in_parallel)
        return TaskOutput(loss, logs)

    def _validate(self, grid: Tensor, batch: Batch) -> TaskOutput:
        shares = {"autoregressive": 1 - self.parallel_share, "parallel": self.parallel_share}
        logs = {}
        for kind, share in shares.items():
            if share:
                parallel = torch.full_like(batch["parallel"], kind == "parallel")
                losses, _ = self.token_losses(grid, batch, parallel)
                logs[kind] = losses.sum() / max(len(losses), 1)
        return TaskOutput(torch.stack([shares[kind] * logs[kind] for kind in logs]).sum(), logs)


def masked_mean(losses: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen losses (M,); that of all where none is chosen, since NaN ends a run.

    So a batch without captions of a kind, one of 10,000 where there are 32, shows the other kind.
    """
    chosen = chosen | ~chosen.any()
    return losses.masked_fill(~chosen, 0).sum() / chosen.sum().clamp(min=1)


@dataclass(frozen=True)
class EncodeParallel:
    """An image and its caption, and whether that is to be predicted in parallel."""

    encode: Encode
    parallel_share: float

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        return {**encoded, "parallel": torch.tensor(generator.random() < self.parallel_share)}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """As `collate_captioned`, with `parallel` (B,) bool."""
    parallel = torch.stack([item["parallel"] for item in encoded])
    return {**collate_captioned(encoded), "parallel": parallel}
