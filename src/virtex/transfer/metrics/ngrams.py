"""Runs of words: what BLEU and CIDEr-D count."""

from collections import Counter
from collections.abc import Sequence

LONGEST = 4
"""Both count runs of one word to four."""
Words = Sequence[str]
Ngram = tuple[str, ...]


def ngrams(words: Words, length: int) -> Counter[Ngram]:
    """How often each run of `length` words occurs."""
    return Counter(zip(*(words[start:] for start in range(length)), strict=False))
