"""How captions are written, and what a model answers: captions, labels, images found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.data.tokenizer import Tokenizer
from virtex.errors import CheckpointError
from virtex.models.decoding import Generated
from virtex.models.decoding_config import DecodingConfig
from virtex.predict.image_inputs import ImageInput


@dataclass(frozen=True)
class Writing:
    """How captions are written."""

    decoding: DecodingConfig
    num_captions: int = 1
    """Captions of each image."""
    prefix: str = ""
    """Words that every caption begins with."""
    seed: int = 0
    """Random seed of the nucleus sampling."""


@dataclass(frozen=True)
class Caption:
    """What the model says of an image."""

    text: str
    log_likelihood: float
    """Natural logarithm of the probability of `tokens`."""
    tokens: tuple[int, ...]
    """Ids without start token, with end token unless the caption was cut at its longest."""
    backward_log_likelihood: float | None = None
    """The same read right to left, where captions were ranked by it."""


@dataclass(frozen=True)
class Classification:
    """How well each label fits an image, without training."""

    labels: tuple[str, ...]
    """As they were given."""
    scores: tuple[float, ...]
    """Of each label: the mean over the templates of the text's log-likelihood, less the prior."""

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Labels and scores, the best first."""
        pairs = zip(self.labels, self.scores, strict=True)
        return sorted(pairs, key=lambda pair: pair[1], reverse=True)

    @property
    def best(self) -> str:
        """The label that fits best."""
        return self.ranked[0][0]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Softmax of the scores: what the labels share if one of them is right."""
        return tuple(torch.tensor(self.scores, dtype=torch.float64).softmax(0).tolist())


@dataclass(frozen=True, eq=False)
class Found:
    """An image that a search found."""

    index: int
    """Its place among the images."""
    picture: ImageInput
    score: float
    """The text's log-likelihood, less the prior."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images to search more than once: the backbone has seen them already."""

    pictures: tuple[ImageInput, ...]
    grids: Tensor
    """(B, C, h, w) on the predictor's device."""


def captions_of(generated: Generated, tokenizer: Tokenizer) -> list[list[Caption]]:
    """Return what a search wrote, (B, n), as text."""
    backward = generated.backward_log_probs
    unread = [[None] * generated.lengths.shape[1]] * len(generated.lengths)
    rows = zip(
        generated.tokens.tolist(),
        generated.lengths.tolist(),
        generated.log_probs.tolist(),
        unread if backward is None else backward.tolist(),
        strict=True,
    )
    return [
        [
            Caption(tokenizer.decode(ids[:length]), log_prob, tuple(ids[:length]), reread)
            for ids, length, log_prob, reread in zip(*row, strict=True)
        ]
        for row in rows
    ]


def with_likelihood(written: Sequence[Sequence[Caption]]) -> list[list[Caption]]:
    """Leave out captions of likelihood -inf, which a search that found too few returns.

    Raises:
        CheckpointError: A likelihood is NaN.
    """
    likelihoods = [one.log_likelihood for captions in written for one in captions]
    require_numbers(torch.tensor(likelihoods, dtype=torch.float64))
    return [[one for one in captions if one.log_likelihood > -math.inf] for captions in written]


def require_numbers(likelihoods: Tensor) -> None:
    """See that a model's likelihoods, of any shape, are numbers.

    Raises:
        CheckpointError: One is NaN.
    """
    if likelihoods.isnan().any():
        raise CheckpointError(
            "the model's likelihoods are not numbers (NaN): its weights are damaged, or its "
            "training diverged. Take an earlier checkpoint, or precision fp32."
        )
