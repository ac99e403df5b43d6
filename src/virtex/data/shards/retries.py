"""Waits between the tries of what a store or a disk refuses, and what is said of them."""

import random
from dataclasses import dataclass

NUM_RETRIES = 12
"""Retries by default, which take 6 minutes: other processes wait 10 minutes for a step."""
MAX_RETRIES = 10_000
"""Most retries: a week."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, and the most before any."""
SPREAD = 0.25
"""Fraction by which a wait varies, so that many processes do not come at once."""


@dataclass
class Tries:
    """The failed tries of one thing in a row."""

    number: int = 0
    next_at: float = 0.0
    """Time before which it is not tried again."""

    def fail(self, now: float, generator: random.Random) -> float:
        """Count a failure; return the seconds until the next try."""
        wait = mean_wait(self.number) * generator.uniform(1 - SPREAD, 1 + SPREAD)
        self.number += 1
        self.next_at = now + wait
        return wait


def mean_wait(number: int) -> float:
    """Return the mean seconds after a number of earlier failures."""
    return min(FIRST_WAIT * 2.0 ** min(number, 20), LONGEST_WAIT)


def patience(num_retries: int) -> float:
    """Return the mean seconds that some retries take."""
    return sum(map(mean_wait, range(num_retries)))
