"""Captioning as a pretext task: forward alone, or in both directions (VirTex's bicaptioning).

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
section 3. Each epoch draws one caption of each example; the loss is the cross-entropy per token of
the caption read left to right, plus that of the caption read right to left.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from virtex.data.captioned import collate_captioned
from virtex.data.transforms import normalize
from virtex.models.backbone import Backbone
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, CaptionTask, TaskConfig, TaskData, TaskOutput


@dataclass(frozen=True)
class CaptioningConfig(TaskConfig):
    """Predict captions token by token."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    bidirectional: bool = True
    """Predict captions right to left as well (bicaptioning); false is forward captioning."""
    original: bool = False
    """Follow the released code: cut long captions, which loses their end token, and start the
    backward Transformer with the forward one's weights."""

    def build(self, backbone: Backbone, data: TaskData) -> "Captioning":
        return Captioning(self, backbone, data)


class Captioning(CaptionTask):
    """A captioner, trained in each direction that it reads."""

    def __init__(self, config: CaptioningConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__(
            config.head,
            backbone,
            data,
            bidirectional=config.bidirectional,
            original=config.original,
        )
        if config.original and config.bidirectional:
            forward, backward = self.captioner.head.decoders
            backward.load_state_dict(forward.state_dict())
        self.collate = collate_captioned

    def forward(self, batch: Batch) -> TaskOutput:
        images = normalize(batch["image"])
        losses = self.captioner.loss(images, batch["tokens"], batch["lengths"])
        logs = {f"captioning_{direction}": loss.detach() for direction, loss in losses.items()}
        return TaskOutput(torch.stack(list(losses.values())).sum(), logs)
