"""CIDEr-D: agreement of a caption's n-grams with the references', rare ones weighing more.

Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, with
the clipping and the length penalty of its CIDEr-D, as pycocoevalcap computes them under the name
CIDEr: document frequencies are counted over the references of the scored images, a length is the
number of word pairs, and a score is ten times the mean cosine (so from 0 to 10). With a single
image no word is rare, and every score is 0.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from virtex.words.ngrams import LONGEST, Ngram, Words, ngrams

SIGMA = 6.0
"""Standard deviation of the length penalty, in words."""
Vector = dict[Ngram, float]
"""Weight of each n-gram of a caption."""


class WeightedCaption(NamedTuple):
    """The weights of a caption's n-grams, and what CIDEr-D compares beside them."""

    vectors: list[tuple[Vector, float]]
    """For each length of n-grams their weights, and the norm of these."""
    num_words: int


def cider_d(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> NDArray[np.float64]:
    """Return the score of each image's caption against its references (N,), from 0 to 10."""
    rarity = Rarity.of(references)
    scores = [
        rarity.scores([words], truths)[0]
        for words, truths in zip(candidates, references, strict=True)
    ]
    return np.asarray(scores)


class Rarity(dict[Ngram, float]):
    """log(images / images whose references hold the n-gram); log(images) where none holds it.

    An n-gram of a single image weighs as much as one of none, and is not kept.
    """

    def __init__(self, num_images: int) -> None:
        self.unknown = math.log(num_images)

    def __missing__(self, ngram: Ngram) -> float:
        return self.unknown

    @classmethod
    def of(cls, references: Sequence[Sequence[Words]]) -> Self:
        """Return the rarity of n-grams in the references of one image or more."""
        counts: Counter[Ngram] = Counter()
        for truths in references:
            seen: set[Ngram] = set()
            for words in truths:
                for length in range(1, LONGEST + 1):
                    seen.update(ngrams(words, length))
            counts.update(seen)
        rarity = cls(len(references))
        rarity.update(
            {
                ngram: rarity.unknown - math.log(count)
                for ngram, count in counts.items()
                if count > 1
            }
        )
        return rarity

    def is_zero(self, references: Sequence[Sequence[Words]]) -> bool:
        """Return whether all n-grams of references weigh nothing, so that every score is 0."""
        return not any(
            self[ngram]
            for truths in references
            for words in truths
            for length in range(1, LONGEST + 1)
            for ngram in ngrams(words, length)
        )

    def scores(self, candidates: Sequence[Words], references: Sequence[Words]) -> list[float]:
        """Return CIDEr-D of each of an image's captions against its references, from 0 to 10."""
        truths = [self._weighted(words) for words in references]
        return [_score(self._weighted(words), truths) for words in candidates]

    def _weighted(self, words: Words) -> WeightedCaption:
        vectors = []
        for length in range(1, LONGEST + 1):
            vector = {ngram: count * self[ngram] for ngram, count in ngrams(words, length).items()}
            vectors.append((vector, math.sqrt(sum(weight**2 for weight in vector.values()))))
        return WeightedCaption(vectors, len(words))


def _score(candidate: WeightedCaption, references: Sequence[WeightedCaption]) -> float:
    total = 0.0
    for reference in references:
        gap = max(candidate.num_words - 1, 0) - max(reference.num_words - 1, 0)
        penalty = math.exp(-(gap**2) / (2 * SIGMA**2))
        pairs = zip(candidate.vectors, reference.vectors, strict=True)
        total += penalty * sum(_clipped_cosine(own, other) for own, other in pairs)
    return 10 * total / LONGEST / len(references)


def _clipped_cosine(candidate: tuple[Vector, float], reference: tuple[Vector, float]) -> float:
    (own, own_norm), (other, other_norm) = candidate, reference
    if own_norm == 0 or other_norm == 0:
        return 0.0
    shared = own.keys() & other.keys()
    return sum(min(own[ngram], other[ngram]) * other[ngram] for ngram in shared) / (
        own_norm * other_norm
    )
