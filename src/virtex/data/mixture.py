"""Which example of a batch comes from which source, where several are mixed by weight.

Imagine the sources as segments of a line, as long as their weights. A batch of B examples takes B
points of the line at equal distances (systematic sampling), and each point is an example of the
segment that it falls into: so each batch is within one example of the weights. The first point of
each of PERIOD batches differs such that together they take each of PERIOD * B points once: so the
weights, rounded to that many parts, are exact over a period.

The points of a batch are dealt out to lanes at equal distances too. After a period each lane takes
its neighbor's part, so that all lanes have used a source equally often after a period for each.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virtex.errors import ConfigError

Counts = NDArray[np.int64]
PERIOD = 64
"""Batches over which the weights are exact."""
GOLDEN_RATIO = (5**0.5 - 1) / 2


class Mixture:
    """The mixing of K sources in batches that are dealt out to L lanes.

    Args:
        weights: (K,) positive numbers, in any unit.
        batch_size: A multiple of `num_lanes`.

    Raises:
        ConfigError: A weight gives less than one example in a period.
    """

    def __init__(self, weights: Sequence[float], *, batch_size: int, num_lanes: int) -> None:
        self.num_lanes, self.per_lane = num_lanes, batch_size // num_lanes
        parts = _apportioned(weights, PERIOD * batch_size)
        self.bounds = np.concatenate([[0], np.cumsum(parts)])  # (K + 1,) of the segments
        turns = np.arange(PERIOD)
        self._shifts, self._firsts = _spread(num_lanes)
        spread = np.argsort(np.argsort(np.arange(num_lanes) * GOLDEN_RATIO % 1))  # (L,)
        self._starts = PERIOD * ((spread + self._shifts[turns, None]) % num_lanes)
        self._starts += self._firsts[turns, None]  # (PERIOD, L) first point of each part
        counts = self._counts()  # (PERIOD, L, K)
        self._before = np.cumsum(counts, axis=0) - counts
        periods = np.tile(counts.sum(0), (2, 1))  # (2L, K)
        self._periods = np.concatenate([np.zeros_like(periods[:1]), np.cumsum(periods, axis=0)])

    def sources(self, step: int) -> Counts:
        """Return the source of each example of a batch (L, B / L), in lane order."""
        period, turn = divmod(step, PERIOD)
        starts = self._starts[turn, self._parts(period)]  # (L,)
        points = starts[:, None] + PERIOD * self.num_lanes * np.arange(self.per_lane)
        return np.searchsorted(self.bounds[1:], points, side="right")

    def uses_before(self, step: int) -> Counts:
        """Return how many examples of each source each lane has used before a batch (L, K)."""
        period, turn = divmod(step, PERIOD)
        rounds, rest = divmod(period, self.num_lanes)
        lanes = np.arange(self.num_lanes)
        whole = rounds * self._periods[self.num_lanes]
        partial = self._periods[lanes + rest] - self._periods[lanes]
        within = self._before[turn, self._parts(period)]
        return np.asarray(whole + partial + within, np.int64)

    def _parts(self, period: int) -> Counts:
        """Return which part of a batch each lane takes (L,)."""
        return (np.arange(self.num_lanes) + period) % self.num_lanes

    def _counts(self) -> Counts:
        """Return the number of points of each part in each segment (PERIOD, L, K)."""
        distance = PERIOD * self.num_lanes
        before = -(-(self.bounds - self._starts[:, :, None]) // distance)  # (PERIOD, L, K + 1)
        return np.diff(np.clip(before, 0, self.per_lane), axis=2)


def _spread(num_lanes: int) -> tuple[Counts, Counts]:
    """Return the shift of the lanes (PERIOD,) and the first point (PERIOD,) of each batch.

    Over a period, the points of one lane come at equal distances, in the order of reversed bits.
    """
    turns = np.arange(PERIOD)
    firsts = np.empty_like(turns)
    firsts[np.argsort(turns * num_lanes % PERIOD, kind="stable")] = turns
    order = [int(f"{turn:06b}"[::-1], 2) for turn in turns.tolist()]
    return (turns * num_lanes // PERIOD)[order], firsts[order]


def _apportioned(weights: Sequence[float], total: int) -> Counts:
    """Return whole numbers in proportion to the weights (K,), by largest remainders."""
    exact = np.asarray(weights, np.float64) * (total / sum(weights))
    parts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(parts - exact, kind="stable")
    parts[by_remainder[: total - parts.sum()]] += 1
    if not parts.all():
        least = sum(weights) / total
        raise ConfigError(
            f"the mixing weight {min(weights):g} is less than one example in {total:,}: give each "
            f"source {least:.2g} or more, or leave it out"
        )
    return parts
