"""Horizontal dot charts: a score for each name, with its deviation, on one axis."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from virtex.report.charts import Tick, axis, number

WHOLE = 100.0
"""Length of the axis: positions are in percent of it."""


@dataclass(frozen=True)
class Dot:
    """A score as the template draws it."""

    name: str
    text: str
    """The score with its deviation."""
    at: float
    """Position on the axis, in percent."""
    reach: tuple[float, float] | None = None
    """Positions of the ends of its deviation; None for one seed."""
    is_best: bool = False


@dataclass(frozen=True)
class DotChart:
    """A dot chart as the template draws it."""

    title: str
    dots: tuple[Dot, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Measured:
    """A score with its deviation, None for one seed; the mean is None if there is no score."""

    name: str
    mean: float | None
    deviation: float | None = None
    in_nats: bool = False
    """Whether the score is a loss or a difference of losses, which is written with about three
    digits and not two decimals."""

    @property
    def text(self) -> str:
        """The mean, with its deviation."""
        if self.mean is None:
            return ""
        numbers = [self.mean, *([] if self.deviation is None else [self.deviation])]
        return " ± ".join(number(one) if self.in_nats else f"{one:.2f}" for one in numbers)

    @property
    def ends(self) -> list[float]:
        """The mean less and plus its deviation; none without a score."""
        half = self.deviation or 0.0
        return [] if self.mean is None else [self.mean - half, self.mean + half]


def dot_chart(
    title: str, measured: Sequence[Measured], *, best: Collection[str]
) -> DotChart | None:
    """Lay out a chart of scores, with the names of the best; None without any."""
    if all(one.mean is None for one in measured):
        return None
    ticks, to_x = axis([end for one in measured for end in one.ends], 0.0, WHOLE, widen=True)
    dots = tuple(
        Dot(
            one.name,
            one.text,
            to_x(one.mean),
            None if one.deviation is None else (to_x(one.ends[0]), to_x(one.ends[1])),
            is_best=one.name in best,
        )
        for one in measured
        if one.mean is not None
    )
    return DotChart(title, dots, ticks)
