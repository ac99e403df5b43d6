"""Captioning as a pretext task: forward alone, or in both directions (VirTex's bicaptioning).

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
section 3. Each example shows one of its captions, drawn anew in each epoch; the loss is the
cross-entropy per token of the caption read left to right plus that of it read right to left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, Encoded, Task, TaskConfig, TaskData, TaskOutput


@dataclass(frozen=True)
class CaptioningConfig(TaskConfig):
    """Predict captions token by token."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    bidirectional: bool = True
    """Predict captions right to left as well (bicaptioning); false is forward captioning."""
    original: bool = False
    """Cut long captions as the released code did, which loses their end token."""

    def build(self, backbone: Backbone, data: TaskData) -> "Captioning":
        return Captioning(self, backbone, data)


class Captioning(Task):
    """Captioner and the two ways in which it reads examples."""

    def __init__(self, config: CaptioningConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        encode_caption = EncodeCaption(
            data.vocabulary, max_tokens=config.head.max_tokens, original=config.original
        )
        self.captioner = Captioner(
            backbone, config.head, data.vocabulary.vocab_size, bidirectional=config.bidirectional
        )
        self.encode = EncodeForTraining(TrainTransform(data.image), encode_caption)
        self.encode_validation = EncodeForValidation(
            ValidationTransform(data.image), encode_caption
        )
        self.collate = collate

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.captioner.backbone

    @property
    def writer(self) -> Captioner:
        return self.captioner

    def forward(self, batch: Batch) -> TaskOutput:
        images = normalize(batch["image"])
        losses = self.captioner.loss(images, batch["tokens"], batch["lengths"])
        logs = {f"captioning_{direction}": loss.detach() for direction, loss in losses.items()}
        return TaskOutput(torch.stack(list(losses.values())).sum(), logs)

    def no_weight_decay(self) -> set[str]:
        return {f"captioner.{name}" for name in self.captioner.no_weight_decay()}


@dataclass(frozen=True)
class EncodeForTraining:
    """One caption drawn at random, and the image, changed together."""

    transform: TrainTransform
    encode_caption: EncodeCaption

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        caption = example.captions[generator.integers(len(example.captions))]
        image, caption = self.transform(example, caption, generator)
        return {"image": image, "tokens": self.encode_caption(caption)}


@dataclass(frozen=True)
class EncodeForValidation:
    """The first caption, and the image resized and cropped at its centre."""

    transform: ValidationTransform
    encode_caption: EncodeCaption

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        del generator
        tokens = self.encode_caption(example.captions[0])
        return {"image": self.transform(example), "tokens": tokens}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Stack images (B, 3, H, W) and pad tokens (B, T) on the right."""
    tokens, lengths = pad_tokens([item["tokens"] for item in encoded])
    images = torch.stack([item["image"] for item in encoded])
    return {"image": images, "tokens": tokens, "lengths": lengths}
