"""Captioning as a pretext task: forward alone, or in both directions (VirTex's bicaptioning).

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
section 3. Each example shows one of its captions, drawn anew in each epoch; the loss is the
cross-entropy per token of the caption read left to right plus that of it read right to left.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from virtex.data.captioned import CaptionedForTraining, CaptionedForValidation, collate_captioned
from virtex.data.captions import EncodeCaption
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData, TaskOutput


@dataclass(frozen=True)
class CaptioningConfig(TaskConfig):
    """Predict captions token by token."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    bidirectional: bool = True
    """Predict captions right to left as well (bicaptioning); false is forward captioning."""
    original: bool = False
    """As the released code: cut long captions, which loses their end token, and start the backward
    Transformer with the forward one's weights."""

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
        if config.original and config.bidirectional:
            forward, backward = self.captioner.head.decoders
            backward.load_state_dict(forward.state_dict())
        self.encode = CaptionedForTraining(TrainTransform(data.image), encode_caption)
        self.encode_validation = CaptionedForValidation(
            ValidationTransform(data.image), encode_caption
        )
        self.collate = collate_captioned

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
