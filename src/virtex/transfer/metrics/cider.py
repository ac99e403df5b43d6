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

import numpy as np
from numpy.typing import NDArray

from virtex.transfer.metrics.ngrams import LONGEST, Ngram, Words, ngrams

SIGMA = 6.0
"""Standard deviation of the length penalty, in words."""
Vector = dict[Ngram, float]
"""Weight of each n-gram of a caption."""


def cider_d(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> NDArray[np.float64]:
    """Return the score of each image's caption against its references (N,), from 0 to 10."""
    rarity = _rarity(references)
    scores = [
        _score(words, truths, rarity) for words, truths in zip(candidates, references, strict=True)
    ]
    return np.asarray(scores)


class _Rarity(dict[Ngram, float]):
    """log(images / images whose references hold the n-gram); log(images) where none holds it."""

    def __init__(self, num_images: int) -> None:
        self.unknown = math.log(num_images)

    def __missing__(self, ngram: Ngram) -> float:
        return self.unknown


def _rarity(references: Sequence[Sequence[Words]]) -> _Rarity:
    counts: Counter[Ngram] = Counter()
    for truths in references:
        seen: set[Ngram] = set()
        for words in truths:
            for length in range(1, LONGEST + 1):
                seen.update(ngrams(words, length))
        counts.update(seen)
    rarity = _Rarity(len(references))
    rarity.update({ngram: rarity.unknown - math.log(count) for ngram, count in counts.items()})
    return rarity


def _score(candidate: Words, references: Sequence[Words], rarity: _Rarity) -> float:
    total = 0.0
    weighted = _weighted(candidate, rarity)
    for reference in references:
        gap = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
        penalty = math.exp(-(gap**2) / (2 * SIGMA**2))
        pairs = zip(weighted, _weighted(reference, rarity), strict=True)
        total += penalty * sum(_clipped_cosine(own, other) for own, other in pairs)
    return 10 * total / LONGEST / len(references)


def _weighted(words: Words, rarity: _Rarity) -> list[tuple[Vector, float]]:
    """Return the weights of the n-grams of each length, and the norm of these."""
    vectors = []
    for length in range(1, LONGEST + 1):
        vector = {ngram: count * rarity[ngram] for ngram, count in ngrams(words, length).items()}
        vectors.append((vector, math.sqrt(sum(weight**2 for weight in vector.values()))))
    return vectors


def _clipped_cosine(candidate: tuple[Vector, float], reference: tuple[Vector, float]) -> float:
    (own, own_norm), (other, other_norm) = candidate, reference
    if own_norm == 0 or other_norm == 0:
        return 0.0
    shared = own.keys() & other.keys()
    return sum(min(own[ngram], other[ngram]) * other[ngram] for ngram in shared) / (
        own_norm * other_norm
    )
