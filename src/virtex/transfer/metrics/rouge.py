"""ROUGE-L: the longest common subsequence of a caption and its references.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. As pycocoevalcap computes it:
best precision and best recall over the references, which need not be one reference's, beta 1.2.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virtex.transfer.metrics.ngrams import Words

BETA = 1.2
NO_WORDS = ("",)
"""pycocoevalcap counts a caption without words as one empty word."""


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> NDArray:
    """(N,) the score of each image's caption against its references, between 0 and 1."""
    return np.asarray(
        [_score(words, truths) for words, truths in zip(candidates, references, strict=True)]
    )


def _score(candidate: Words, references: Sequence[Words]) -> float:
    words = candidate or NO_WORDS
    truths = [truth or NO_WORDS for truth in references]
    common = [common_length(words, truth) for truth in truths]
    precision = max(common) / len(words)
    recall = max(count / len(truth) for count, truth in zip(common, truths, strict=True))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_length(words: Words, others: Words) -> int:
    """Length of the longest common subsequence.

    Bits of an integer stand for the places in `words`, so that a step serves them all: Hyyrö,
    "Bit-Parallel LCS-length Computation Revisited", 2004.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(words)) - 1
    unmatched = everywhere
    for word in others:
        hit = unmatched & places.get(word, 0)
        unmatched = ((unmatched + hit) | (unmatched - hit)) & everywhere
    return len(words) - unmatched.bit_count()
