"""What a number of a protocol is, by its name: which is better, and in which unit."""

import re
from typing import Literal

Direction = Literal["higher", "lower", "neither"]
LOWER = re.compile(
    r"(?:.*_)?(?:loss|error|perplexity|ece|median_rank)|repeated_\w+|empty_captions", re.IGNORECASE
)
"""Names of numbers of which a lower one is better."""
NEITHER = re.compile(r"blind_.+|chance_\w+|num_\w+|cost|mean_words|vocabulary")
"""Names of controls, of counts, and of what a protocol chose."""
NATS = re.compile(r"(?:.*_)?loss|image_gain", re.IGNORECASE)
"""Names of losses, and of differences of losses; other scores are in percent."""


def direction_of(number: str) -> Direction:
    """Return whether a higher or a lower value of a number, by its name, is better."""
    if NEITHER.fullmatch(number):
        return "neither"
    return "lower" if LOWER.fullmatch(number) else "higher"


def is_in_nats(number: str) -> bool:
    """Return whether a number, by its name, is a loss or a difference of losses."""
    return NATS.fullmatch(number) is not None
