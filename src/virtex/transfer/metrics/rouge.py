"""ROUGE-L: the longest common subsequence of a caption and its references.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004. As pycocoevalcap computes it:
the best precision and the best recall over the references, which may come from different ones, and
beta 1.2.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virtex.words.ngrams import Words

BETA = 1.2
NO_WORDS = ("",)
"""pycocoevalcap counts a caption without words as one empty word."""


def rouge_l(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> NDArray[np.float64]:
    """Return the score of each image's caption against its references (N,), from 0 to 1."""
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
    """Return the length of the longest common subsequence.

    Bit i of an integer stands for word i of `words`, so that one operation serves all of them:
    Hyyrö, "Bit-Parallel LCS-length Computation Revisited", 2004.
    """
    bits: dict[str, int] = {}
    for index, word in enumerate(words):
        bits[word] = bits.get(word, 0) | 1 << index
    everywhere = (1 << len(words)) - 1
    unmatched = everywhere
    for word in others:
        hit = unmatched & bits.get(word, 0)
        unmatched = ((unmatched + hit) | (unmatched - hit)) & everywhere
    return len(words) - unmatched.bit_count()
