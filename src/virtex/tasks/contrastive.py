"""Contrastive learning of images and captions, by softmax (CLIP) or sigmoid (SigLIP).

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
figure 3; Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, algorithm 1. Each
image is compared with the captions of the whole batch, over all processes; only its own caption
matches. They are controls for captioning at equal budget, so the augmentation of images and the
weight decay of backbones are those of the other tasks.

So are the captions of accumulated pieces, by a second pass (virtex.engine.two_pass). Validation
compares the pairs of one process's batch only, as processes may have unequal numbers of batches.
Loss and accuracy depend on how many pairs are compared.

With `token_weight` token classification is added, as in SuperCLIP: see token_loss.py.

Shapes: B pairs on this process, G on all processes, T tokens, E embedding size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, pad
from torch.nn.functional import normalize as to_unit_length

from virtex import distributed
from virtex.data.captioned import collate_captioned
from virtex.data.transforms import normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.linear import Linear
from virtex.models.packing import LENGTH_MULTIPLE, rounded_up
from virtex.models.text_encoder import TextEncoder, TextEncoderConfig
from virtex.tasks import token_loss
from virtex.tasks.base import Batch, Encoded, PairwiseTask, TaskData, TaskOutput
from virtex.tasks.token_loss import WithTokens, WithTokensConfig
from virtex.tokens import PAD_ID

Loss = Literal["softmax", "sigmoid"]
FIRST_LOG_SCALE: dict[Loss, float] = {"softmax": math.log(1 / 0.07), "sigmoid": math.log(10)}
FIRST_BIAS = -10.0
"""Initial bias of the sigmoid, so that the first steps need not learn that few pairs match."""
MAX_LOG_SCALE = math.log(100)
"""Largest scale of the softmax; CLIP was unstable beyond it."""


@dataclass(frozen=True)
class ContrastiveConfig(WithTokensConfig):
    """Distinguish an image's own caption from those of the other images in the batch."""

    loss: Loss = "softmax"
    """softmax: classify the caption of each image and the image of each caption (CLIP); sigmoid:
    classify each pair as matching or not (SigLIP)."""
    embedding_size: int = 512
    """Size E of the embedding space in which images and captions are compared."""
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"embedding_size": (1, 2**14)}) + self.token_problems()
        if self.loss not in get_args(Loss):
            problems.append(f"loss {self.loss!r} is neither 'softmax' nor 'sigmoid'")
        raise_all(ConfigError, "the options of contrastive pretraining cannot work", problems)

    def batch_problems(self, num_images: int, *, num_pieces: int) -> list[str]:
        del num_pieces
        if num_images * distributed.world_size() > 1:
            return []
        return [
            "contrastive pretraining compares the pairs of a batch: raise run.batch_size from 1"
        ]

    def build(self, backbone: Backbone, data: TaskData) -> "Contrastive":
        return Contrastive(self, backbone, data)


class Contrastive(WithTokens, PairwiseTask):
    """Two encoders, each with a projection, and the learned temperature of their similarities."""

    def __init__(self, config: ContrastiveConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        self.loss = config.loss
        self.add_module("backbone", backbone)
        self.text_encoder = TextEncoder(config.text, data.vocabulary.vocab_size)
        widths = backbone.num_channels, config.text.hidden_size
        self.image_projection, self.text_projection = (
            Linear(width, config.embedding_size, bias=False) for width in widths
        )
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(FIRST_LOG_SCALE[config.loss]))
        self.bias = nn.Parameter(torch.tensor(FIRST_BIAS)) if config.loss == "sigmoid" else None
        self.encode, self.encode_validation = data.encode_captioned(config.text.max_tokens)
        self.token_loss = config.token_loss(backbone, data)
        self.collate = CollateCaptions(
            config.text.max_tokens, with_token_targets=self.token_loss is not None
        )
        self.dynamic = {"tokens": 1}
        if self.token_loss:
            self.dynamic[token_loss.NAME] = 1

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Return the vectors (B, E) of images and captions, and the token losses (B,) if any."""
        pooled = self.backbone.pooled(normalize(batch["image"]))  # (B, C)
        embeddings = {
            "images": self._project_images(pooled),
            "texts": self.embed_texts(batch["tokens"], batch["lengths"]),
        }
        if self.token_loss:
            embeddings["token_losses"] = self.token_loss(pooled, batch[token_loss.NAME])
        return embeddings

    def compare(self, embeddings: Mapping[str, Tensor]) -> TaskOutput:
        """Return the loss of vectors (B, E), compared in training with those of all processes."""
        images, texts = embeddings["images"], embeddings["texts"]
        gather = distributed.gather_with_gradient if self.training else _alone
        with torch.autocast(images.device.type, enabled=False):
            by_image = self.log_scale.exp() * images @ gather(texts).T  # (B, G)
            own = torch.arange(len(images), device=images.device)
            if self.training:
                own = own + distributed.rank() * len(images)
            if self.bias is not None:
                loss = sigmoid_loss(by_image + self.bias, own)
            else:
                by_text = self.log_scale.exp() * texts @ gather(images).T
                loss = softmax_loss(by_image, by_text, own)
        top1 = (by_image.argmax(1) == own).float().mean()
        temperature = (-self.log_scale.detach()).exp()
        logs = {"contrastive": loss.detach(), "retrieval_top1": top1, "temperature": temperature}
        if self.token_loss:
            of_tokens = embeddings["token_losses"].mean()
            loss, logs["tokens"] = loss + self.token_loss.weight * of_tokens, of_tokens.detach()
        return TaskOutput(loss, logs)

    def embed_images(self, images: Tensor) -> Tensor:
        """Return float32 unit vectors (B, E) of normalised images (B, 3, H, W)."""
        return self._project_images(self.backbone.pooled(images))

    def embed_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return float32 unit vectors (B, E) of padded captions (B, T) with `lengths` (B,).

        The dot product with an image's vector is their cosine similarity.
        """
        projected = self.text_projection(self.text_encoder(tokens, lengths))
        return to_unit_length(projected.float(), dim=1)

    def _project_images(self, pooled: Tensor) -> Tensor:
        """Return float32 unit vectors (B, E) of pooled features (B, C)."""
        return to_unit_length(self.image_projection(pooled).float(), dim=1)

    def no_weight_decay(self) -> set[str]:
        text_encoder = {f"text_encoder.{name}" for name in self.text_encoder.no_weight_decay()}
        scalars = {"log_scale"} if self.bias is None else {"log_scale", "bias"}
        return text_encoder | scalars

    @torch.no_grad()
    def after_step(self, step: int, kept: Sequence[Mapping[str, Tensor]]) -> None:
        """Clamp CLIP's temperature to at least 0.01."""
        del step, kept
        if self.loss == "softmax":
            self.log_scale.clamp_(max=MAX_LOG_SCALE)


@dataclass(frozen=True)
class CollateCaptions:
    """Collation of images and captions, padded to a multiple of 8 tokens or to the most."""

    max_tokens: int
    with_token_targets: bool = False
    """Whether to add the distinct tokens (B, K) of each caption."""

    def __call__(self, encoded: Sequence[Encoded]) -> Batch:
        captioned = collate_captioned(encoded)
        tokens = captioned["tokens"]  # (B, T)
        num_tokens = min(rounded_up(tokens.shape[1], LENGTH_MULTIPLE), self.max_tokens)
        padded = pad(tokens, (0, num_tokens - tokens.shape[1]), value=PAD_ID)
        batch = {**captioned, "tokens": padded}
        if self.with_token_targets:
            batch[token_loss.NAME] = token_loss.token_targets([item["tokens"] for item in encoded])
        return batch


def softmax_loss(by_image: Tensor, by_text: Tensor, own: Tensor) -> Tensor:
    """Return CLIP's loss: the mean cross-entropy of the captions of images and the reverse.

    Logits (B, G) have a row for each example of this process; `own` (B,) is its match's column.
    """
    return (cross_entropy(by_image, own) + cross_entropy(by_text, own)) / 2


def sigmoid_loss(by_image: Tensor, own: Tensor) -> Tensor:
    """Return SigLIP's loss, minus the log-likelihood of pairs per image; see `softmax_loss`."""
    columns = torch.arange(by_image.shape[1], device=by_image.device)
    signs = 2.0 * (columns == own[:, None]) - 1  # (B, G)
    return -logsigmoid(signs * by_image).sum(1).mean()


def _alone(value: Tensor) -> Tensor:
    """Return this process's rows, without a gather."""
    return value
