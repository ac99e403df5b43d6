"""Captioning as a pretext task: forward alone, or in both directions (VirTex's bicaptioning).

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
section 3. Each epoch draws one caption of each example, or `captions_per_image`; the loss is the
cross-entropy per token of the captions read left to right, plus that of the captions read right to
left: the sum over all tokens of a step divided by their number, whatever the number of processes.
The released code takes the mean over each process's tokens, as `original` does.

With `token_weight` token classification is added, see token_loss.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from virtex.data.captioned import collate_captioned
from virtex.data.transforms import normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.packing import Direction, Packing, length_multiple, pack_readings
from virtex.models.textual_head import HeadConfig
from virtex.tasks import token_loss
from virtex.tasks.base import (
    Batch,
    Encoded,
    TaskData,
    TaskOutput,
    WithSmoothingConfig,
    mean_loss,
)
from virtex.tasks.grid_share import WithGridShare, WithGridShareConfig
from virtex.tasks.token_loss import WithTokens, WithTokensConfig

MAX_CAPTIONS = 64
"""Most captions of an image in a step."""


@dataclass(frozen=True)
class CaptioningConfig(WithTokensConfig, WithSmoothingConfig, WithGridShareConfig):
    """Predict captions token by token."""

    writes_captions: ClassVar[bool] = True
    head: HeadConfig = field(default_factory=HeadConfig)
    bidirectional: bool = True
    """Predict captions right to left as well (bicaptioning); false is forward captioning."""
    original: bool = False
    """Follow the released code: cut long captions, which loses their end token, start the backward
    Transformer with the forward one's weights, and take the mean over each process's tokens."""

    captions_per_image: int = 1
    """Captions of each image in a step, for one pass through the backbone; images with fewer
    repeat theirs."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"captions_per_image": (1, MAX_CAPTIONS)})
        problems += self.token_problems() + self.smoothing_problems() + self.grid_problems()
        raise_all(ConfigError, "the options of captioning cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "Captioning":
        return Captioning(self, backbone, data)


class Captioning(WithTokens, WithGridShare):
    """A captioner, trained in each direction that it reads."""

    def __init__(self, config: CaptioningConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__(
            config.head,
            backbone,
            data,
            bidirectional=config.bidirectional,
            original=config.original,
            num_captions=config.captions_per_image,
            label_smoothing=config.label_smoothing,
        )
        if config.original and config.bidirectional:
            forward, backward = self.captioner.head.decoders
            backward.load_state_dict(forward.state_dict())
        self.token_loss = config.token_loss(backbone, data)
        self.collate = CollateReadings(
            self.captioner.head.directions,
            length_multiple(config.head.max_tokens),
            with_token_targets=self.token_loss is not None,
        )
        self.counts = () if config.original else ("num_targets",)
        self.dynamic = {"rows": 0, "inputs": 1, "targets": 1}
        if self.token_loss:
            self.dynamic[token_loss.NAME] = 1
        self.thin(config.grid_share, data)

    def forward(self, batch: Batch) -> TaskOutput:
        grid = self.backbone(normalize(batch["image"]))  # (B, C, h, w)
        packing = Packing(batch["rows"], batch["places"])
        losses = self.captioner.next_token_losses(
            self.seen(grid, batch), batch["inputs"], batch["targets"], packing
        )  # (R, P)
        means = mean_loss(losses, batch["num_targets"])  # (R,)
        names = [f"captioning_{direction}" for direction in self.captioner.head.directions]
        loss, logs = means.sum(), dict(zip(names, means.detach(), strict=True))
        num_targets = batch["num_targets"].float().mean()
        weights = {} if self.training else dict.fromkeys(("loss", *names), num_targets)
        if self.token_loss is None:
            return TaskOutput(loss, logs, weights=weights)
        of_images = self.token_loss(grid.mean((2, 3)), batch[token_loss.NAME])  # (B,)
        terms = {**dict.fromkeys(names, 1.0), "tokens": self.token_loss.weight}
        loss = loss + self.token_loss.weight * of_images.mean()
        logs["tokens"] = of_images.detach().mean()
        weights["tokens"] = loss.new_full((), len(of_images))
        return TaskOutput(loss, logs, weights=weights, terms=terms)


@dataclass(frozen=True)
class CollateReadings:
    """Collation of images and captions into `image` and the tensors of `Readings`."""

    directions: tuple[Direction, ...]
    multiple: int
    with_token_targets: bool = False
    """Whether to add `token_targets` (B, K), the distinct tokens of each image's captions."""

    def __call__(self, encoded: Sequence[Encoded]) -> Batch:
        captioned = collate_captioned(encoded)
        readings = pack_readings(
            captioned["tokens"], captioned["lengths"], self.directions, multiple=self.multiple
        )
        batch = {"image": captioned["image"], **readings._asdict()}
        if self.with_token_targets:
            batch[token_loss.NAME] = token_loss.token_targets([item["tokens"] for item in encoded])
        return batch
