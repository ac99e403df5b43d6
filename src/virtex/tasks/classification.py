"""Classification as a pretext task: which tokens a caption holds, or which classes an image shows.

Token classification and multi-label classification are pretraining tasks of Desai and Johnson, CVPR
2021: a linear layer on pooled features, and K-hot targets. One label an image is supervised
classification, the baseline of ImageNet. Huang et al., "Classification Done Right for
Vision-Language Pre-Training" (SuperClass, NeurIPS 2024), weigh tokens by inverse document
frequency.

An example without any target (an image without objects, a caption of unknown tokens) adds 0 to a
softmax loss, which remains the mean over all examples; the released code dropped such images.

Shapes: B examples, C channels, V classes, K targets of an example (padded with NO_TARGET).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from virtex.data.captioned import CaptionedForTraining, CaptionedForValidation
from virtex.data.captions import FEWEST_TOKENS, EncodeCaption
from virtex.data.example import Example
from virtex.data.source_options import Needs
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.k_hot import NO_TARGET, DocumentFrequencies, bce_losses, softmax_losses
from virtex.models.linear import Linear
from virtex.models.transformer_sizes import MAX_TOKENS
from virtex.tasks.base import Batch, Encode, Encoded, Task, TaskConfig, TaskData, TaskOutput
from virtex.tokens import NUM_SPECIAL

Loss = Literal["softmax", "bce"]


@dataclass(frozen=True)
class TokenClassificationConfig(TaskConfig):
    """Predict which tokens a caption holds, all at once and in no order."""

    loss: Loss = "softmax"
    """softmax: minus the mean log-probability of an example's tokens under one softmax over the
    vocabulary (the paper's); bce: a yes or no for every token of the vocabulary, summed."""
    idf: bool = False
    """Weigh tokens by inverse document frequency, counted while training (SuperClass); softmax
    only."""
    max_tokens: int = 30
    """Longest caption, with its start and end tokens; the text of longer ones is cut."""
    original: bool = False
    """Cut long captions as the released code did, one token later."""

    def __post_init__(self) -> None:
        problems = _problems(self.loss, idf=self.idf)
        problems += out_of_range(self, {"max_tokens": (FEWEST_TOKENS, MAX_TOKENS)})
        raise_all(ConfigError, "the options of token classification cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "Classification":
        encode_caption = EncodeCaption(
            data.vocabulary, max_tokens=self.max_tokens, original=self.original
        )
        return Classification(
            self,
            backbone,
            num_classes=data.vocabulary.vocab_size,
            encode=TokensAsTargets(
                CaptionedForTraining(TrainTransform(data.image), encode_caption)
            ),
            encode_validation=TokensAsTargets(
                CaptionedForValidation(ValidationTransform(data.image), encode_caption)
            ),
        )


@dataclass(frozen=True)
class LabelClassificationConfig(TaskConfig):
    """Predict the classes of an image: several (multi-label) or one (supervised)."""

    loss: Loss = "softmax"
    """softmax: minus the mean log-probability of an image's classes under one softmax (the
    paper's; the cross-entropy where an image has one class); bce: a yes or no for every class,
    summed."""
    idf: bool = False
    """Weigh classes by inverse document frequency, counted while training; softmax only. No effect
    where each image has one class."""
    original: bool = False
    """Keep an unused class 0 before the others, as the released code did: 81 rows for COCO."""

    def __post_init__(self) -> None:
        problems = _problems(self.loss, idf=self.idf)
        raise_all(ConfigError, "the options of label classification cannot work", problems)

    @property
    def needs(self) -> Needs:
        return Needs(labels=True)

    def build(self, backbone: Backbone, data: TaskData) -> "Classification":
        if not data.categories:
            raise ConfigError(
                "label classification: the data has no classes; take a --data.source that has "
                "labels (classes, coco, voc or scenes), or --task token_classification for captions"
            )
        first_row = int(self.original)
        return Classification(
            self,
            backbone,
            num_classes=first_row + len(data.categories),
            encode=LabelledForTraining(TrainTransform(data.image), first_row),
            encode_validation=LabelledForValidation(ValidationTransform(data.image), first_row),
        )


class Classification(Task):
    """Backbone, pooling, and a linear layer with a row for each class.

    The layer starts as PyTorch starts it, which the released code left so. For bce its bias starts
    at -log(V), one class expected per image (after Lin et al., "Focal Loss", ICCV 2017, section
    3.3), since thousands of steps would pass before it came down from 0.
    """

    def __init__(
        self,
        config: TokenClassificationConfig | LabelClassificationConfig,
        backbone: Backbone,
        *,
        num_classes: int,
        encode: Encode,
        encode_validation: Encode,
    ) -> None:
        super().__init__()
        self.loss = config.loss
        self.backbone = backbone
        self.output = Linear(backbone.num_channels, num_classes)
        if config.loss == "bce":
            nn.init.constant_(self.output.bias, -math.log(num_classes))
        self.frequencies = DocumentFrequencies(num_classes) if config.idf else None
        self.encode, self.encode_validation, self.collate = encode, encode_validation, collate

    def forward(self, batch: Batch) -> TaskOutput:
        """Loss of images with `targets` (B, K); training with idf counts them first."""
        targets = batch["targets"]
        logits = self.logits(normalize(batch["image"])).float()
        if self.loss == "bce":
            losses = bce_losses(logits, targets)
        else:
            losses = softmax_losses(logits, targets, self._weights(targets))
        loss = losses.mean()
        top1 = (targets == logits.argmax(1, keepdim=True)).any(1).float().mean()
        return TaskOutput(loss, {"classification": loss.detach(), "top1": top1})

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, V) of normalised images (B, 3, H, W)."""
        return self.output(self.backbone.pooled(images))

    def _weights(self, targets: Tensor) -> Tensor | None:
        if self.frequencies is None:
            return None
        if self.training:
            self.frequencies.count(targets)
        return self.frequencies.weights()


@dataclass(frozen=True)
class TokensAsTargets:
    """An image, and the different tokens of its caption without special ones, rising."""

    encode: Encode
    """Gives the image and the caption's tokens."""

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        tokens = encoded["tokens"].unique()
        return {"image": encoded["image"], "targets": tokens[tokens >= NUM_SPECIAL]}


@dataclass(frozen=True)
class LabelledForTraining:
    """The image, changed, and the rows of its labels in the output."""

    transform: TrainTransform
    first_row: int

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        image, _ = self.transform(example, "", generator)
        return {"image": image, "targets": _rows(example, self.first_row)}


@dataclass(frozen=True)
class LabelledForValidation:
    """The image resized and cropped at its centre, and the rows of its labels in the output."""

    transform: ValidationTransform
    first_row: int

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        del generator
        return {"image": self.transform(example), "targets": _rows(example, self.first_row)}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Stack images (B, 3, H, W) and pad targets (B, K) with NO_TARGET."""
    targets = [item["targets"] for item in encoded]
    return {
        "image": torch.stack([item["image"] for item in encoded]),
        "targets": pad_sequence(targets, batch_first=True, padding_value=NO_TARGET),
    }


def _rows(example: Example, first_row: int) -> Tensor:
    """The rows (K,) of an image's different labels, rising; label 0 has the first."""
    return first_row + torch.tensor(sorted(set(example.labels)), dtype=torch.int64)


def _problems(loss: str, *, idf: bool) -> list[str]:
    """What is wrong with the options that both configs have."""
    problems = []
    if loss not in get_args(Loss):
        problems.append(f"loss {loss!r} is neither 'softmax' nor 'bce'")
    if idf and loss == "bce":
        problems.append("idf weighs the targets of a softmax: leave it out, or set loss to softmax")
    return problems
