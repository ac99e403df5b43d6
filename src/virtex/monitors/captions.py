"""Captions that say little: whether many of a sample are the same."""

from collections import Counter
from collections.abc import Sequence

MANY_EQUAL = 0.2
"""Fraction of captions that are one and the same, from which a head can answer it by heart."""
MANY_REPEATED = 0.8
"""Fraction of captions that repeat another of the sample: few texts, like class names."""
FEWEST_CAPTIONS = 50
"""Captions from which a share means something."""


def duplicate_captions(captions: Sequence[str]) -> str | None:
    """Return what is seen if many captions of a sample are the same, letter case aside."""
    counts = Counter(" ".join(caption.lower().split()) for caption in captions)
    total = len(captions)
    if total < FEWEST_CAPTIONS:
        return None
    text, number = counts.most_common(1)[0]
    if number > MANY_EQUAL * total:
        return f"{number / total:.0%} of {total:,} captions are {text[:40]!r}"
    repeated = 1 - len(counts) / total
    if repeated > MANY_REPEATED:
        return f"{total:,} captions are {len(counts):,} distinct texts"
    return None
