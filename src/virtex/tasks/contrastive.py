"""Contrast of images and captions as a pretext task, by softmax (CLIP) or sigmoid (SigLIP).

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
figure 3; Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, algorithm 1. Each
image is compared with the captions of the whole batch, over all processes; its own is the right
one. Here they are controls for captioning at equal budget, so that images are augmented and
backbones decayed as in the other tasks.

In evaluation, and where a batch is accumulated in pieces, pairs are those of one process's piece:
processes then need not have equally many batches. Its size sets the level of loss and accuracy.

Shapes: B pairs on this process, G on all processes, E embedding size.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid
from torch.nn.functional import normalize as to_unit_length

from virtex import distributed
from virtex.data.captioned import CaptionedForTraining, CaptionedForValidation, collate_captioned
from virtex.data.captions import EncodeCaption
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.linear import Linear
from virtex.models.text_encoder import TextEncoder, TextEncoderConfig
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData, TaskOutput

Loss = Literal["softmax", "sigmoid"]
FIRST_LOG_SCALE: dict[Loss, float] = {"softmax": math.log(1 / 0.07), "sigmoid": math.log(10)}
FIRST_BIAS = -10.0
"""Of the sigmoid: nearly all pairs are wrong ones, and the first steps need not learn that."""
MAX_LOG_SCALE = math.log(100)
"""Of the softmax, which CLIP found unstable beyond."""


@dataclass(frozen=True)
class ContrastiveConfig(TaskConfig):
    """Tell an image's own caption from those of the other images in the batch."""

    loss: Loss = "softmax"
    """softmax: choose the caption for each image, and the image for each caption (CLIP); sigmoid:
    a yes or no for every pair (SigLIP)."""
    embedding_size: int = 512
    """Size E of the space in which images and captions are compared."""
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"embedding_size": (1, 2**14)})
        if self.loss not in get_args(Loss):
            problems.append(f"loss {self.loss!r} is neither 'softmax' nor 'sigmoid'")
        raise_all(ConfigError, "the options of contrastive pretraining cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "Contrastive":
        return Contrastive(self, backbone, data)


class Contrastive(Task):
    """Two encoders, each with a projection, and the learned temperature of their similarities."""

    def __init__(self, config: ContrastiveConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        self.loss = config.loss
        self.backbone = backbone
        self.text_encoder = TextEncoder(config.text, data.vocabulary.vocab_size)
        widths = backbone.num_channels, config.text.hidden_size
        self.image_projection, self.text_projection = (
            Linear(width, config.embedding_size, bias=False) for width in widths
        )
        for width, projection in zip(
            widths, (self.image_projection, self.text_projection), strict=True
        ):
            nn.init.normal_(projection.weight, std=width**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(FIRST_LOG_SCALE[config.loss]))
        self.bias = nn.Parameter(torch.tensor(FIRST_BIAS)) if config.loss == "sigmoid" else None
        encode_caption = EncodeCaption(data.vocabulary, max_tokens=config.text.max_tokens)
        self.encode = CaptionedForTraining(TrainTransform(data.image), encode_caption)
        self.encode_validation = CaptionedForValidation(
            ValidationTransform(data.image), encode_caption
        )
        self.collate = collate_captioned

    def forward(self, batch: Batch) -> TaskOutput:
        images = self.embed_images(normalize(batch["image"]))  # (B, E)
        texts = self.embed_texts(batch["tokens"], batch["lengths"])
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
        return TaskOutput(loss, logs)

    def embed_images(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to vectors (B, E) of length 1, in float32."""
        projected = self.image_projection(self.backbone.pooled(images))
        return to_unit_length(projected.float(), dim=1)

    def embed_texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Padded captions (B, T) and their lengths (B,) to vectors (B, E) of length 1, in float32.

        The dot product with an image's vector says how well they fit, from -1 to 1.
        """
        projected = self.text_projection(self.text_encoder(tokens, lengths))
        return to_unit_length(projected.float(), dim=1)

    def no_weight_decay(self) -> set[str]:
        text_encoder = {f"text_encoder.{name}" for name in self.text_encoder.no_weight_decay()}
        scalars = {"log_scale"} if self.bias is None else {"log_scale", "bias"}
        return text_encoder | scalars

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keep CLIP's temperature at or above 0.01."""
        del step
        if self.loss == "softmax":
            self.log_scale.clamp_(max=MAX_LOG_SCALE)


def softmax_loss(by_image: Tensor, by_text: Tensor, own: Tensor) -> Tensor:
    """CLIP's loss: the mean of choosing a caption for each image and an image for each caption.

    Args:
        by_image: (B, G) logits of this process's images with all captions.
        by_text: (B, G) logits of this process's captions with all images.
        own: (B,) column of each one's own counterpart.
    """
    return (cross_entropy(by_image, own) + cross_entropy(by_text, own)) / 2


def sigmoid_loss(by_image: Tensor, own: Tensor) -> Tensor:
    """SigLIP's loss: minus the log-likelihood of all pairs, divided by the number of images.

    Args:
        by_image: (B, G) logits of this process's images with all captions.
        own: (B,) column of each image's own caption.
    """
    columns = torch.arange(by_image.shape[1], device=by_image.device)
    signs = 2.0 * (columns == own[:, None]) - 1  # (B, G)
    return -logsigmoid(signs * by_image).sum(1).mean()


def _alone(value: Tensor) -> Tensor:
    """This process's part, where others are not asked for theirs."""
    return value
