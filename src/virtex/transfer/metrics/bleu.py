"""BLEU of a corpus: Papineni et al., "BLEU: a Method for Automatic Evaluation", ACL 2002.

As pycocoevalcap computes it: clipped counts and lengths are summed over all captions, a caption's
length is compared to that of the reference nearest in length (the shorter of two equally near), and
pycocoevalcap's constants keep divisors from zero.
"""

import math
from collections import Counter
from collections.abc import Sequence

from virtex.words.ngrams import LONGEST, Ngram, Words, ngrams

TINY, SMALL = 1e-15, 1e-9


def bleu(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[float, float, float, float]:
    """Return BLEU-1 to BLEU-4 of all captions together, from 0 to 1."""
    num_hits, num_guesses = [0] * LONGEST, [0] * LONGEST
    length = nearest = 0
    for words, truths in zip(candidates, references, strict=True):
        length += len(words)
        nearest += min((abs(len(truth) - len(words)), len(truth)) for truth in truths)[1]
        for order in range(LONGEST):
            num_hits[order] += _clipped_hits(words, truths, order + 1)
            num_guesses[order] += max(0, len(words) - order)
    ratio = (length + TINY) / (nearest + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, scores = 1.0, []
    for order in range(LONGEST):
        product *= (num_hits[order] + TINY) / (num_guesses[order] + SMALL)
        scores.append(brevity * product ** (1 / (order + 1)))
    return scores[0], scores[1], scores[2], scores[3]


def _clipped_hits(words: Words, truths: Sequence[Words], length: int) -> int:
    """Return the number of n-grams that references hold, each at most as often as one of them."""
    allowed: Counter[Ngram] = Counter()
    for truth in truths:
        allowed |= ngrams(truth, length)
    return (ngrams(words, length) & allowed).total()
