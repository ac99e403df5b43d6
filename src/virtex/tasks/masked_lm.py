"""Masked language modelling: hidden tokens predicted from the image and the other tokens.

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
section 4.2, after BERT (Devlin et al., 2019). With `masked_words: concepts`, ICMLM (Sariyildiz et
al., "Learning Visual Representations with Caption Annotations", ECCV 2020): only words that name
something are hidden, each as a whole. That paper has separate text and image encoders; here the
textual head reads both.

From n tokens ceil(mask_prob * n) are chosen, as in the released code: at least one, so every
caption with text has a target. Departures from that code, undone by `original`:

- Only [MASK] was a target, not chosen tokens that stayed or became random ones. Here all are.
- A single chosen token always became [MASK]. Here the fractions hold for it too.
- Random tokens could be padding, start, end or [MASK].
- Long captions lost their end token.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from virtex.data.captioned import collate_captioned
from virtex.data.captions import pad_tokens
from virtex.data.concept_words import FindConcepts, read_words
from virtex.data.example import Example
from virtex.data.transforms import normalize
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.models.packing import Packing, layout, length_multiple, num_packed, pack_tokens
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import (
    Batch,
    Encode,
    Encoded,
    TaskData,
    TaskOutput,
    WithSmoothingConfig,
    mean_loss,
)
from virtex.tasks.grid_share import WithGridShare, WithGridShareConfig
from virtex.tokens import MASK_ID, NUM_SPECIAL, PAD_ID

Units = Callable[[Sequence[int]], list[tuple[int, ...]]]
"""Function from token ids to the units that may be hidden, each the positions of its tokens."""


@dataclass(frozen=True)
class MaskedLmConfig(WithSmoothingConfig, WithGridShareConfig):
    """Predict hidden tokens of a caption from the image and the other tokens."""

    head: HeadConfig = field(default_factory=HeadConfig)
    mask_prob: float = 0.15
    """Fraction of a caption's tokens (or concept words) that are chosen, rounded up to a number."""
    mask_token_share: float = 0.85
    """Fraction of the chosen tokens that become [MASK]."""
    random_token_share: float = 0.1
    """Fraction of the chosen tokens that become a random token; the rest stay as they are."""
    masked_words: Literal["tokens", "concepts"] = "tokens"
    """tokens: any token may be chosen; concepts: whole words that name something (ICMLM), those of
    `concepts_path` or else all but English function words (the, of, is ...)."""
    concepts_path: Path | None = None
    """Text file of concept words, one a line, for `masked_words: concepts`."""
    original: bool = False
    """Follow the released code: only [MASK] is a target; a single chosen token always becomes
    [MASK]; random tokens may be special ones; long captions lose their end token; the loss is the
    mean over each process's targets."""

    def __post_init__(self) -> None:
        problems = self.smoothing_problems() + self.grid_problems()
        if not 0 < self.mask_prob <= 1:
            problems.append(f"mask_prob {self.mask_prob} must be above 0, up to 1")
        shares = self.mask_token_share, self.random_token_share
        if min(shares) < 0 or sum(shares) > 1:
            problems.append(
                f"mask_token_share {shares[0]} and random_token_share {shares[1]} must be from 0 "
                "to 1, and so must their sum"
            )
        if self.masked_words not in ("tokens", "concepts"):
            problems.append(f"masked_words {self.masked_words!r}: neither 'tokens' nor 'concepts'")
        if self.concepts_path is not None and self.masked_words != "concepts":
            problems.append("concepts_path is for masked_words: concepts")
        if self.original and not self.mask_token_share:
            problems.append(
                "original with mask_token_share 0 leaves no target: [MASK] alone is one"
            )
        if self.original and self.masked_words == "concepts":
            problems.append("original is for masked_words: tokens; the released code had no other")
        raise_all(ConfigError, "the options of masked language modelling cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "MaskedLm":
        return MaskedLm(self, backbone, data)


class MaskedLm(WithGridShare):
    """A captioner without its causal mask, which predicts the hidden tokens of captions."""

    def __init__(self, config: MaskedLmConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__(
            config.head,
            backbone,
            data,
            original=config.original,
            label_smoothing=config.label_smoothing,
        )
        hide = Hide(config, data.vocabulary.vocab_size, _units(config, data))
        self.encode = EncodeMasked(self.encode, hide)
        self.encode_validation = EncodeMasked(self.encode_validation, hide)
        self.collate = partial(collate, multiple=length_multiple(config.head.max_tokens))
        self.counts = () if config.original else ("num_targets",)
        self.dynamic = {"rows": 0, "inputs": 0, "chosen": 0, "targets": 0}
        self.thin(config.grid_share, data)

    @property
    def writer(self) -> None:
        """No model: the captioner never learns to predict the next token."""

    def forward(self, batch: Batch) -> TaskOutput:
        """Return the mean over all targets; 0 if there are none, as in captions without text."""
        losses = self.captioner.token_losses(
            self.seen(self.backbone(normalize(batch["image"])), batch),
            batch["inputs"],
            batch["targets"],
            Packing(batch["rows"], batch["places"]).seeing_all(),
            chosen=batch["chosen"],
        )  # (M,)
        loss = mean_loss(losses, batch["num_targets"])
        if not self.training:  # whose numbers are means over targets, not captions
            return TaskOutput(loss, weights={"loss": batch["num_targets"]})
        return TaskOutput(loss, {"targets_per_caption": batch["num_targets"] / len(batch["image"])})


@dataclass(frozen=True)
class EncodeMasked:
    """An image, its caption with some tokens hidden, and the hidden tokens as targets."""

    encode: Encode
    hide: "Hide"

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        tokens, targets = self.hide(encoded["tokens"], generator)
        return {**encoded, "tokens": tokens, "targets": targets}


@dataclass(frozen=True)
class Hide:
    """Choice of a caption's targets, and of what replaces each in the input."""

    config: MaskedLmConfig
    vocab_size: int
    units: Units

    def __call__(self, tokens: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the decoder's inputs (T,) and targets (T,), PAD_ID at positions without one."""
        original = self.config.original
        inputs, targets = tokens.clone(), torch.full_like(tokens, PAD_ID)
        units = self.units(tokens.tolist())
        num_chosen = math.ceil(self.config.mask_prob * len(units))
        for unit in generator.choice(len(units), num_chosen, replace=False) if units else ():
            positions = torch.tensor(units[unit])
            draw = generator.random()
            is_masked = draw < self.config.mask_token_share or (original and num_chosen == 1)
            if is_masked or not original:
                targets[positions] = tokens[positions]
            if is_masked:
                inputs[positions] = MASK_ID
            elif draw < self.config.mask_token_share + self.config.random_token_share:
                first = 0 if original else NUM_SPECIAL
                drawn = generator.integers(first, self.vocab_size, size=len(positions))
                inputs[positions] = torch.from_numpy(drawn)
        return inputs, targets


@dataclass(frozen=True)
class ConceptUnits:
    """Concept words as units, each with all of its pieces."""

    find: FindConcepts

    def __call__(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        return [word.indices for word in self.find(tokens)]


def token_units(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """Return each token as a unit, except special ones and the last one of a cut caption."""
    return [(index,) for index in range(1, len(tokens) - 1) if tokens[index] >= NUM_SPECIAL]


def collate(encoded: Sequence[Encoded], *, multiple: int) -> Batch:
    """Collate images, packed captions, and the places and ids of M targets.

    They are `rows` (P,) and `places` (B, T) of a Packing, `inputs` (P,), and `chosen` (M,) places
    in it of `targets` (M,). Targets are padded with PAD_ID, whose place is the dead token.
    """
    captioned = collate_captioned(encoded)
    targets, lengths = pad_tokens([item["targets"] for item in encoded])
    rows, places = layout(lengths, multiple)
    packed = pack_tokens(targets, lengths, len(rows))
    found = packed.nonzero().squeeze(1)
    chosen = torch.full((num_packed(len(found)),), len(rows) - 1)
    chosen[: len(found)] = found
    return {
        "image": captioned["image"],
        "rows": rows,
        "places": places,
        "inputs": pack_tokens(captioned["tokens"], lengths, len(rows)),
        "chosen": chosen,
        "targets": packed[chosen],
        "num_targets": torch.tensor(float(len(found))),
    }


def _units(config: MaskedLmConfig, data: TaskData) -> Units:
    if config.masked_words == "tokens":
        return token_units
    path, vocabulary = config.concepts_path, data.vocabulary
    listed = None if path is None else read_words(path, vocabulary)
    units = ConceptUnits(FindConcepts(vocabulary, listed))
    captions = data.references() if data.references else ()
    texts = (text for of_image in captions for text in of_image)
    if captions and not any(units(vocabulary.encode(text)) for text in texts):
        whose = f"of {path}" if path else "that name something"
        raise ConfigError(
            f"masked language modelling would learn nothing: the captions of {len(captions):,} "
            f"training images hold no words {whose}. Give task.concepts_path a list of words of "
            "your captions, one a line, or leave task.masked_words at tokens."
        )
    return units
