"""Prefix language modelling: one ViT reads an image, then its caption, and predicts each token.

Fang et al., "Let ViT Speak: Generative Language-Image Pre-training" (GenLIP, arXiv 2605.00809). The
tokens of an image are the prefix: they attend to one another and to no text. A token of the caption
attends to the prefix and to the caption up to itself, through the same blocks, and the loss is the
cross-entropy of the token that follows it: no text encoder, no decoder, no contrast. As no text
reaches the prefix, the features of an image are those that the ViT gives without a caption.

Departures: the ViT is timm's, with learned positions for patches and for tokens and without a gate
on attention, where the authors rotate queries and keys and gate the output of attention. Within the
first block a caption sees itself alone, since timm gives out what leaves a block but not what
enters the first. A start token stands between the prefix and the caption.

Shapes: B images, N tokens of an image, class and register tokens included, T tokens of a caption,
P packed ones, D width, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from virtex.data.captioned import collate_captioned
from virtex.data.transforms import normalize
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.feature_grid import reason
from virtex.models.linear import Linear
from virtex.models.packing import Packing, length_multiple, pack_readings
from virtex.tasks.base import (
    Batch,
    Encoded,
    Task,
    TaskData,
    TaskOutput,
    WithSmoothingConfig,
    mean_loss,
)
from virtex.tokens import PAD_ID

FEWEST_TOKENS, MAX_TOKENS = 3, 1000
INITIAL_STD = 0.02
SAME = 1e-4
"""How far features with and without text may differ, by rounding."""
BLOCK_TAKES = {"x", "attn_mask", "is_causal"}
"""Parameters of a plain block of timm; other blocks take rotary positions or shapes as well."""


@dataclass(frozen=True)
class PrefixLmConfig(WithSmoothingConfig):
    """Predict captions token by token within a ViT, which reads the image and then the caption."""

    max_tokens: int = 30
    """Maximum length of a caption, start and end token included."""

    def __post_init__(self) -> None:
        problems = out_of_range(self, {"max_tokens": (FEWEST_TOKENS, MAX_TOKENS)})
        problems += self.smoothing_problems()
        raise_all(ConfigError, "the options of prefix language modelling cannot work", problems)

    def check_backbone(self, backbone: Backbone) -> None:
        """Raise ConfigError unless the network is a ViT that can read a caption."""
        check_reads_text(backbone)

    def build(self, backbone: Backbone, data: TaskData) -> "PrefixLm":
        return PrefixLm(self, backbone, data)


class PrefixLm(Task):
    """A ViT with the embedding and the prediction of tokens."""

    def __init__(self, config: PrefixLmConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        config.check_backbone(backbone)
        self.add_module("backbone", backbone)
        vocab_size, width = data.vocabulary.vocab_size, backbone.num_channels
        self.words = nn.Embedding(vocab_size, width, padding_idx=PAD_ID)
        self.positions = nn.Embedding(config.max_tokens, width)
        self.output = Linear(width, vocab_size)
        self.label_smoothing = config.label_smoothing
        self.encode, self.encode_validation = data.encode_captioned(config.max_tokens)
        self.collate = partial(collate, multiple=length_multiple(config.max_tokens))
        self.counts = ("num_targets",)
        self.dynamic = {"rows": 0, "inputs": 1, "targets": 1}
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw embeddings and output weights from N(0, 0.02); biases and padding's row are zero."""
        for module in (self.words, self.positions, self.output):
            nn.init.normal_(module.weight, std=INITIAL_STD)
        self.words.weight[PAD_ID] = 0
        nn.init.zeros_(self.output.bias)

    def forward(self, batch: Batch) -> TaskOutput:
        """Return the mean over all tokens after the first of each caption."""
        losses = self.token_losses(
            normalize(batch["image"]),
            batch["inputs"][0],
            batch["targets"][0],
            Packing(batch["rows"], batch["places"]),
        )
        (loss,) = mean_loss(losses[None], batch["num_targets"])
        return TaskOutput(loss)

    def token_losses(
        self, images: Tensor, inputs: Tensor, targets: Tensor, packing: Packing
    ) -> Tensor:
        """Return the losses (P,) of packed inputs (P,) and targets (P,); 0 where it is PAD_ID."""
        positions = packing.positions.clamp(max=self.positions.num_embeddings - 1)  # of dead tokens
        embedded = self.words(inputs) + self.positions(positions)  # (P, D)
        text = packing.pad(embedded)  # (B, T, D)
        _, text = read_prefix_and_text(self.backbone, images, text)
        return cross_entropy(
            self.output(packing.pack(text)),  # (P, V)
            targets,
            ignore_index=PAD_ID,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )

    def no_weight_decay(self) -> set[str]:
        """Return the bias of the output layer."""
        return {"output.bias"}


def read_prefix_and_text(backbone: Backbone, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last tokens (B, N, D) of images (B, 3, H, W), and those (B, T, D) of their text.

    Args:
        text: (B, T, D) embedded tokens. As attention among them is causal, padding on the right
            changes nothing before it.
    """
    network = backbone.cnn
    first, *others = network.blocks
    prefix = after_first_block(network, backbone.renormalize(images))  # (B, N, D)
    tokens = torch.cat([prefix, first(text, is_causal=True)], 1)  # (B, N + T, D)
    sizes = prefix.shape[1], text.shape[1]
    visible = prefix_mask(*sizes, device=tokens.device)
    for block in others:
        if backbone.config.grad_checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, visible, use_reentrant=False)
        else:
            tokens = block(tokens, attn_mask=visible)
    prefix, text = network.norm(tokens).split(sizes, 1)
    return prefix, text


def after_first_block(network: Any, images: Tensor) -> Tensor:
    """Return the tokens (B, N, D) of images after a ViT's first block, prefix tokens first."""
    (found,) = network.forward_intermediates(
        images,
        indices=[0],
        return_prefix_tokens=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    if isinstance(found, Tensor):
        return found
    patches, others = found  # class and register tokens
    return torch.cat([others, patches], 1)


def prefix_mask(num_prefix: int, num_text: int, *, device: torch.device) -> Tensor:
    """Return which token (row) may attend to which (column), (N + T, N + T) bool.

    All attend to the prefix; text attends to text up to itself as well.
    """
    places = torch.arange(num_prefix + num_text, device=device)
    return (places < num_prefix) | (places <= places[:, None])


def check_reads_text(backbone: Backbone) -> None:
    """Raise ConfigError unless a network is a ViT whose blocks also read text."""
    refusal = (
        f"backbone {backbone.config.name!r} cannot read a caption behind an image's patches{{}}. "
        "Prefix language modelling needs a plain ViT of timm with two blocks or more: "
        "vit_small_patch16_224, vit_base_patch16_clip_224, vit_medium_patch16_reg4_gap_256, "
        "deit3_small_patch16_224... It cannot be a network with stages, rotary or relative "
        "positions, nor a convolutional one; `--task captioning` takes any backbone."
    )
    blocks = list(getattr(backbone.cnn, "blocks", []))
    taken = [set(inspect.signature(block.forward).parameters) for block in blocks]
    if len(blocks) < 2 or any(names != BLOCK_TAKES for names in taken):
        raise ConfigError(refusal.format(""))
    mode = backbone.training
    try:
        is_unchanged = _keeps_features(backbone.eval())
    except Exception as error:  # timm's networks raise errors of many kinds
        raise ConfigError(refusal.format(f" ({reason(error)})")) from error
    finally:
        backbone.train(mode)
    if not is_unchanged:
        raise ConfigError(refusal.format(" without a change of its features"))


@torch.no_grad()
def _keeps_features(backbone: Backbone) -> bool:
    """Return whether the features of an image are the same with text behind them."""
    device, size = next(backbone.parameters()).device, backbone.own_size
    image = torch.linspace(-1, 1, 3 * size**2, device=device).view(1, 3, size, size)
    text = torch.ones(1, 2, backbone.num_channels, device=device)
    prefix, _ = read_prefix_and_text(backbone, image, text)
    features = backbone(image).flatten(2).mT  # (1, h * w, D)
    return prefix.is_meta or torch.allclose(
        prefix[:, -features.shape[1] :], features, rtol=SAME, atol=SAME
    )


def collate(encoded: Sequence[Encoded], *, multiple: int) -> Batch:
    """Collate images and the tensors of forward `Readings`."""
    captioned = collate_captioned(encoded)
    readings = pack_readings(
        captioned["tokens"], captioned["lengths"], ["forward"], multiple=multiple
    )
    return {"image": captioned["image"], **readings._asdict()}
