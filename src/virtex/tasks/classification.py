"""Classification as a pretext task: the tokens of a caption, or the classes of an image.

Token classification and multi-label classification are pretraining tasks of Desai and Johnson, CVPR
2021: a linear layer on pooled features, and K-hot targets. With one label an image this is
supervised classification, the ImageNet baseline. Huang et al., "Classification Done Right for
Vision-Language Pre-Training" (SuperClass, NeurIPS 2024), weight tokens by inverse document
frequency.

An example without targets (an image without objects, a caption of unknown tokens) adds 0 to a
softmax loss, which remains the mean over all examples; the released code dropped such images.

Shapes: B examples, C channels, V classes, K targets of an example, padded with NO_TARGET.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from virtex.data.captions import FEWEST_TOKENS
from virtex.data.example import Example
from virtex.data.source_options import Needs
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.k_hot import DocumentFrequencies, bce_losses, pad_targets, softmax_losses
from virtex.models.linear import Linear
from virtex.models.transformer_sizes import MAX_TOKENS
from virtex.tasks.base import Batch, Encode, Encoded, Task, TaskConfig, TaskData, TaskOutput
from virtex.tasks.token_loss import distinct_tokens

Loss = Literal["softmax", "bce"]


@dataclass(frozen=True)
class TokenClassificationConfig(TaskConfig):
    """Predict the set of a caption's tokens, without their order."""

    loss: Loss = "softmax"
    """softmax: minus the mean log-probability of an example's tokens under one softmax over the
    vocabulary (the paper's); bce: binary cross-entropy, summed over the vocabulary."""
    idf: bool = False
    """Weight tokens by inverse document frequency, counted during training (SuperClass); softmax
    only."""
    max_tokens: int = 30
    """Maximum length of a caption, start and end token included; longer texts are cut."""
    original: bool = False
    """Cut long captions as the released code did, one token later."""

    def __post_init__(self) -> None:
        problems = _problems(self.loss, idf=self.idf)
        problems += out_of_range(self, {"max_tokens": (FEWEST_TOKENS, MAX_TOKENS)})
        raise_all(ConfigError, "the options of token classification cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "Classification":
        training, validation = data.encode_captioned(self.max_tokens, original=self.original)
        return Classification(
            self,
            backbone,
            num_classes=data.vocabulary.vocab_size,
            encode=TokensAsTargets(training),
            encode_validation=TokensAsTargets(validation),
        )


@dataclass(frozen=True)
class LabelClassificationConfig(TaskConfig):
    """Predict the classes of an image: several (multi-label) or one (supervised)."""

    loss: Loss = "softmax"
    """softmax: minus the mean log-probability of an image's classes under one softmax (the
    paper's; the cross-entropy if an image has one class); bce: binary cross-entropy, summed over
    the classes."""
    idf: bool = False
    """Weight classes by inverse document frequency, counted during training; softmax only. It has
    no effect if each image has one class."""
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
        if len(data.categories) == 1 and self.loss == "softmax":
            raise ConfigError(
                f"label classification would learn nothing: {data.categories[0]!r} is the only "
                "class. Is --data.root the folder of all classes?"
            )
        first_row = int(self.original)
        return Classification(
            self,
            backbone,
            num_classes=first_row + len(data.categories),
            encode=LabelsAsTargets(TrainTransform(data.image), first_row),
            encode_validation=LabelsAsTargets(ValidationTransform(data.image), first_row),
        )


class Classification(Task):
    """Backbone, pooling, and a linear layer with a row for each class.

    The layer has PyTorch's initialization, as in the released code. For bce its bias starts at
    -log(V), one expected class per image (after Lin et al., "Focal Loss", ICCV 2017, section 3.3):
    from 0 it would take thousands of steps to get there.
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
        self.add_module("backbone", backbone)
        self.output = Linear(backbone.num_channels, num_classes)
        if config.loss == "bce":
            nn.init.constant_(self.output.bias, -math.log(num_classes))
        self.frequencies = DocumentFrequencies(num_classes) if config.idf else None
        self.encode, self.encode_validation, self.collate = encode, encode_validation, collate
        self.dynamic = {"targets": 1}

    @torch.no_grad()
    def prepare_step(self, pieces: list[Batch], *, seed: int) -> list[Batch]:
        """Count the classes of a step, before the first piece is weighted by them."""
        del seed
        if self.frequencies is not None:
            self.frequencies.count([piece["targets"] for piece in pieces])
        return pieces

    def forward(self, batch: Batch) -> TaskOutput:
        """Return the loss of images with `targets` (B, K)."""
        targets = batch["targets"]
        logits = self.logits(normalize(batch["image"])).float()
        if self.loss == "bce":
            losses = bce_losses(logits, targets)
        else:
            weights = None if self.frequencies is None else self.frequencies.weights()
            losses = softmax_losses(logits, targets, weights)
        loss = losses.mean()
        top1 = (targets == logits.argmax(1, keepdim=True)).any(1).float().mean()
        return TaskOutput(loss, {"classification": loss.detach(), "top1": top1})

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, V) of normalised images (B, 3, H, W)."""
        return self.output(self.backbone.pooled(images))


@dataclass(frozen=True)
class TokensAsTargets:
    """An image, and the distinct ordinary tokens of its caption in ascending order."""

    encode: Encode

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        return {"image": encoded["image"], "targets": distinct_tokens(encoded["tokens"])}


@dataclass(frozen=True)
class LabelsAsTargets:
    """An image, and the output rows of its distinct labels in ascending order."""

    transform: TrainTransform | ValidationTransform
    first_row: int
    """The output row of label 0."""

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        if isinstance(self.transform, TrainTransform):
            image, _ = self.transform(example, "", generator)
        else:
            image = self.transform(example)
        labels = torch.tensor(sorted(set(example.labels)), dtype=torch.int64)
        return {"image": image, "targets": self.first_row + labels}


def collate(encoded: Sequence[Encoded]) -> Batch:
    """Stack images (B, 3, H, W) and pad targets (B, K) with NO_TARGET."""
    return {
        "image": torch.stack([item["image"] for item in encoded]),
        "targets": pad_targets([item["targets"] for item in encoded]),
    }


def _problems(loss: str, *, idf: bool) -> list[str]:
    """Return the problems of the options that both configs have."""
    problems = []
    if loss not in get_args(Loss):
        problems.append(f"loss {loss!r} is neither 'softmax' nor 'bce'")
    if idf and loss == "bce":
        problems.append("idf weighs the targets of a softmax: leave it out, or set loss to softmax")
    return problems
