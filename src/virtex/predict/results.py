"""Options of captioning, and results of a model: captions, labels, search hits."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.data.tokenizer import Tokenizer
from virtex.errors import CheckpointError, ConfigError
from virtex.models.decoding import Generated
from virtex.models.decoding_config import DecodingConfig
from virtex.predict.image_inputs import ImageInput

REMEDY = (
    "its weights are damaged, or its training diverged. Take an earlier checkpoint, or precision "
    "fp32."
)
"""What values that are not numbers mean, and what to do."""


@dataclass(frozen=True)
class Writing:
    """Options of captioning."""

    decoding: DecodingConfig
    num_captions: int = 1
    """Number of captions for each image."""
    prefix: str = ""
    """Words that every caption begins with."""
    seed: int = 0
    """Random seed of the nucleus sampling."""

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str):
            raise ConfigError(f"prefix is {self.prefix!r}, must be a text; '' for none")

    def generators(self, keys: Iterable[object]) -> list[torch.Generator] | None:
        """Return a random generator for each image, or None where nothing is sampled.

        A generator depends on `seed` and the image's key alone, and not on the rest of the batch.

        Args:
            keys: Names or indices of the images.
        """
        if self.decoding.strategy != "nucleus":
            return None
        digests = [
            hashlib.sha256(f"{self.seed} {key}".encode("utf-8", "surrogatepass")).digest()
            for key in keys
        ]
        return [
            torch.Generator().manual_seed(int.from_bytes(digest[:8], "big")) for digest in digests
        ]


@dataclass(frozen=True)
class Caption:
    """A caption of an image."""

    text: str
    log_likelihood: float
    """Natural logarithm of the probability of `tokens`."""
    tokens: tuple[int, ...]
    """Ids without the start token; they end with the end token, unless the caption was cut at the
    maximum length."""
    backward_log_likelihood: float | None = None
    """Log-likelihood under the right-to-left decoder, if that took part in the ranking."""


@dataclass(frozen=True)
class Classification:
    """Scores of labels for an image, by zero-shot classification."""

    labels: tuple[str, ...]
    """Labels, in the order given."""
    scores: tuple[float, ...]
    """Score of each label: its log-likelihood less the prior, averaged over the templates."""

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Labels and scores, by descending score."""
        pairs = zip(self.labels, self.scores, strict=True)
        return sorted(pairs, key=lambda pair: pair[1], reverse=True)

    @property
    def best(self) -> str:
        """Label with the highest score."""
        return self.ranked[0][0]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Softmax of the scores: the probability of each label, if one of them is right."""
        return tuple(torch.tensor(self.scores, dtype=torch.float64).softmax(0).tolist())


@dataclass(frozen=True, eq=False)
class Found:
    """An image found by a search."""

    index: int
    """Index among the images searched."""
    image: ImageInput
    score: float
    """Log-likelihood of the text less the prior."""

    @property
    def picture(self) -> ImageInput:
        """The same as `image`, for callers of version 0.1."""
        return self.image


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images to search, and their features, computed once for all searches."""

    images: tuple[ImageInput, ...]
    grids: Tensor
    """(B, C, h, w) on the predictor's device."""


def decode_captions(generated: Generated, tokenizer: Tokenizer) -> list[list[Caption]]:
    """Return the token sequences (B, n) of a search as captions."""
    backward = generated.backward_log_probs
    none = [[None] * generated.lengths.shape[1]] * len(generated.lengths)
    rows = zip(
        generated.tokens.tolist(),
        generated.lengths.tolist(),
        generated.log_probs.tolist(),
        none if backward is None else backward.tolist(),
        strict=True,
    )
    return [
        [
            Caption(
                tokenizer.decode(ids[:length]), log_prob, tuple(ids[:length]), backward_log_prob
            )
            for ids, length, log_prob, backward_log_prob in zip(*row, strict=True)
        ]
        for row in rows
    ]


def drop_impossible(captions: Sequence[Sequence[Caption]]) -> list[list[Caption]]:
    """Return the possible captions; a search that finds too few adds some of likelihood -inf.

    Raises:
        CheckpointError: A likelihood is NaN.
    """
    check_captions(captions)
    return [[one for one in of_image if one.log_likelihood > -math.inf] for of_image in captions]


def check_captions(captions: Sequence[Sequence[Caption]]) -> None:
    """Check that no caption's likelihood is NaN.

    Raises:
        CheckpointError: One is.
    """
    likelihoods = [one.log_likelihood for of_image in captions for one in of_image]
    check_not_nan(torch.tensor(likelihoods, dtype=torch.float64))


def check_not_nan(likelihoods: Tensor) -> None:
    """Check that no likelihood is NaN; one of -inf is an impossible text.

    Raises:
        CheckpointError: One is.
    """
    if likelihoods.isnan().any():
        raise CheckpointError(f"the model's likelihoods are not numbers (NaN): {REMEDY}")


def check_finite(vectors: Tensor) -> None:
    """Check that embeddings hold neither NaN nor infinity.

    Raises:
        CheckpointError: They do.
    """
    if not vectors.isfinite().all():
        raise CheckpointError(f"the model's embeddings are not numbers (NaN, infinity): {REMEDY}")
