"""Whether a higher or a lower number of a protocol is better."""

import re
from typing import Literal

Direction = Literal["higher", "lower", "neither"]
LOWER = re.compile(
    r"(?:.*_)?(?:loss|error|perplexity|ece|median_rank)|repeated_\w+|empty_captions", re.IGNORECASE
)
"""Names of numbers of which a lower one is better."""
NEITHER = re.compile(r"num_\w+|cost|mean_words|vocabulary")
"""Names of counts, and of what a protocol chose."""


def direction_of(number: str) -> Direction:
    """Return whether a higher or a lower value of a number, by its name, is better."""
    if NEITHER.fullmatch(number):
        return "neither"
    return "lower" if LOWER.fullmatch(number) else "higher"
