"""N-grams of words, which BLEU and CIDEr-D count."""

from collections import Counter
from collections.abc import Sequence

LONGEST = 4
"""Greatest n; both count n-grams of one word to four."""
Words = Sequence[str]
Ngram = tuple[str, ...]


def ngrams(words: Words, length: int) -> Counter[Ngram]:
    """Return how often each n-gram of `length` words occurs."""
    return Counter(zip(*(words[start:] for start in range(length)), strict=False))
