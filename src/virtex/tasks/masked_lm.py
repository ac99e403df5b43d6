"""Masked language modelling with the image: hidden tokens told from the others and from the grid.

Desai and Johnson, "VirTex: Learning Visual Representations from Textual Annotations", CVPR 2021,
section 4.2, after BERT (Devlin et al., 2019). With `masked_words: concepts`, ICMLM (Sariyildiz et
al., "Learning Visual Representations with Caption Annotations", ECCV 2020): only words that name
something are hidden, and each as a whole. There the paper has text and image encoders of its own;
here the textual head reads both.

Of n tokens ceil(mask_prob * n) are chosen, as in the released code: at least one, so that each
caption with text has something to tell. Departures from that code, which `original` undoes:

- It put random tokens in, and left chosen tokens as they were, without asking for either: only
  [MASK] was a target. Here all chosen tokens are targets.
- A token chosen alone always became [MASK]. Here the shares hold for it too.
- Random tokens could be padding, start, end or [MASK].
- Long captions lost their end token.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from virtex.data.captioned import CaptionedForTraining, CaptionedForValidation, collate_captioned
from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.transforms import TrainTransform, ValidationTransform, normalize
from virtex.data.words import FindConcepts, read_words
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.models.captioner import Captioner
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, Encode, Encoded, Task, TaskConfig, TaskData, TaskOutput
from virtex.tokens import MASK_ID, NUM_SPECIAL, PAD_ID

Units = Callable[[Sequence[int]], list[tuple[int, ...]]]
"""Token ids to what may be hidden: places that are hidden together."""


@dataclass(frozen=True)
class MaskedLmConfig(TaskConfig):
    """Predict hidden tokens of a caption from the image and the other tokens."""

    head: HeadConfig = field(default_factory=HeadConfig)
    mask_prob: float = 0.15
    """Share of a caption's tokens (or concept words) that are chosen, rounded up to at least 1."""
    mask_token_share: float = 0.85
    """Share of the chosen ones that become [MASK]."""
    random_token_share: float = 0.1
    """Share of the chosen ones that become a random token; the rest stay as they are."""
    masked_words: Literal["tokens", "concepts"] = "tokens"
    """What may be chosen: any token, or whole words that name something (ICMLM): those of
    `concepts_path`, or else every word that is no English function word (the, of, is ...)."""
    concepts_path: Path | None = None
    """Text file of concept words, one a line, for `masked_words: concepts`."""
    original: bool = False
    """Bring back the released code's rule: only [MASK] is a target; a token chosen alone always
    becomes [MASK]; random tokens may be special ones; long captions lose their end token."""

    def __post_init__(self) -> None:
        problems = []
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
        elif self.concepts_path is not None and not self.concepts_path.is_file():
            problems.append(f"concepts_path {self.concepts_path} is no file")
        if self.original and self.masked_words == "concepts":
            problems.append("original is for masked_words: tokens; the released code had no other")
        raise_all(ConfigError, "the options of masked language modelling cannot work", problems)

    def build(self, backbone: Backbone, data: TaskData) -> "MaskedLm":
        return MaskedLm(self, backbone, data)


class MaskedLm(Task):
    """A forward captioner that reads each caption as a whole, some of its tokens hidden."""

    def __init__(self, config: MaskedLmConfig, backbone: Backbone, data: TaskData) -> None:
        super().__init__()
        encode_caption = EncodeCaption(
            data.vocabulary, max_tokens=config.head.max_tokens, original=config.original
        )
        hide = Hide(config, data.vocabulary.vocab_size, _units(config, data))
        self.captioner = Captioner(
            backbone, config.head, data.vocabulary.vocab_size, bidirectional=False
        )
        self.encode = EncodeMasked(
            CaptionedForTraining(TrainTransform(data.image), encode_caption), hide
        )
        self.encode_validation = EncodeMasked(
            CaptionedForValidation(ValidationTransform(data.image), encode_caption), hide
        )
        self.collate = collate

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.captioner.backbone

    def forward(self, batch: Batch) -> TaskOutput:
        """The mean over all targets; 0 where the batch has none, as captions without text do."""
        tokens = batch["tokens"]
        losses, _ = self.captioner.token_losses(
            self.backbone(normalize(batch["image"])),
            tokens,
            batch["targets"],
            lengths=batch["lengths"],
            noncausal=torch.ones(len(tokens), dtype=torch.bool, device=tokens.device),
        )  # (M,)
        logs = {"targets_per_caption": losses.new_full((), len(losses) / len(tokens))}
        return TaskOutput(losses.sum() / max(len(losses), 1), logs)

    def no_weight_decay(self) -> set[str]:
        return {f"captioner.{name}" for name in self.captioner.no_weight_decay()}


@dataclass(frozen=True)
class EncodeMasked:
    """An image and its caption, of which some tokens are hidden."""

    encode: Encode
    hide: "Hide"

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        tokens, targets = self.hide(encoded["tokens"], generator)
        return {**encoded, "tokens": tokens, "targets": targets}


@dataclass(frozen=True)
class Hide:
    """Chooses tokens of a caption, and puts something else in the place of most of them."""

    config: MaskedLmConfig
    vocab_size: int
    units: Units

    def __call__(self, tokens: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The caption (T,) as the model is to read it, and (T,) what it is to tell.

        Targets are PAD_ID wherever nothing is asked.
        """
        inputs, targets = tokens.clone(), torch.full_like(tokens, PAD_ID)
        units = self.units(tokens.tolist())
        num_chosen = math.ceil(self.config.mask_prob * len(units))
        for unit in generator.choice(len(units), num_chosen, replace=False) if units else ():
            places = torch.tensor(units[unit])
            kind = self._kind(generator, alone=num_chosen == 1)
            if kind == "mask" or not self.config.original:
                targets[places] = tokens[places]
            if kind == "mask":
                inputs[places] = MASK_ID
            elif kind == "random":
                first = 0 if self.config.original else NUM_SPECIAL
                drawn = generator.integers(first, self.vocab_size, size=len(places))
                inputs[places] = torch.from_numpy(drawn)
        return inputs, targets

    def _kind(
        self, generator: np.random.Generator, *, alone: bool
    ) -> Literal["mask", "random", "same"]:
        draw = generator.random()
        if draw < self.config.mask_token_share or (alone and self.config.original):
            return "mask"
        both = self.config.mask_token_share + self.config.random_token_share
        return "random" if draw < both else "same"


@dataclass(frozen=True)
class ConceptUnits:
    """The pieces of each concept word."""

    find: FindConcepts

    def __call__(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        return [word.places for word in self.find(tokens)]


def token_units(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """Each token by itself, but for special ones, and for the last where its end was cut off."""
    return [(place,) for place in range(1, len(tokens) - 1) if tokens[place] >= NUM_SPECIAL]


def collate(encoded: Sequence[Encoded]) -> Batch:
    """As `collate_captioned`, with the targets (B, T) beside the tokens."""
    targets, _ = pad_tokens([item["targets"] for item in encoded])
    return {**collate_captioned(encoded), "targets": targets}


def _units(config: MaskedLmConfig, data: TaskData) -> Units:
    if config.masked_words == "tokens":
        return token_units
    listed = None if config.concepts_path is None else read_words(config.concepts_path)
    return ConceptUnits(FindConcepts(data.vocabulary, listed))
