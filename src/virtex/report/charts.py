"""Line charts: the coordinates of a small SVG that the page's template draws.

Colors and fonts are in the page's style sheet, for light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 360, 216
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 10, 28
MAX_POINTS = 120
NUM_TICKS = 5
UNITS = ((1e6, "M"), (1e3, "k"))

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]
    """(step, value), by ascending step."""
    color: int = 0
    """Index of one of the page's colors."""
    measured: bool = False
    """Whether to draw a dashed line with a dot per point, for a few single measurements."""


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A series in chart coordinates."""

    series: Series
    path: str
    """SVG path data."""
    dots: tuple[tuple[float, float, str], ...]
    """x, y and tooltip of each dot."""
    last: str
    """Text of the last value."""


@dataclass(frozen=True)
class Chart:
    """A chart as the template draws it."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    """Description for screen readers."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def line_chart(title: str, series: Sequence[Series], *, from_zero: bool = False) -> Chart:
    """Lay out a chart of value over step; each series has at least one point, all finite."""
    steps = [x for one in series for x, _ in one.points]
    values = [y for one in series for _, y in one.points] + [0.0] * from_zero
    x_ticks, to_x = _axis(steps, LEFT, WIDTH - RIGHT)
    y_ticks, to_y = _axis(values, HEIGHT - BOTTOM, TOP, widen=True)
    lines = tuple(_line(one, to_x, to_y) for one in series)
    ends = "; ".join(f"{line.series.name} ends at {line.last}".strip() for line in lines)
    return Chart(title, lines, x_ticks, y_ticks, summary=f"{title} over steps: {ends}.")


def binned(points: Sequence[Point], *, most: int = MAX_POINTS) -> tuple[Point, ...]:
    """Average neighbouring points to at most `most` points; the last may have fewer neighbours."""
    size = math.ceil(len(points) / most) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple(
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    )


def number(value: float) -> str:
    """Format a number with about three digits, and a narrow space between thousands."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if size >= 0.01:
        return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"
    return f"{value:.1e}".replace("e-0", "e-")


@dataclass(frozen=True)
class _Scale:
    """A linear map from values to coordinates."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        fraction = (value - self.low) / (self.high - self.low)
        return round(self.start + fraction * (self.end - self.start), 1)


def _axis(
    values: Sequence[float], start: float, end: float, *, widen: bool = False
) -> tuple[tuple[Tick, ...], _Scale]:
    """Return ticks at round values, and the scale; `widen` extends it to the outer ticks."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1), high + (abs(high) or 1)
    locator = MaxNLocator(NUM_TICKS, steps=[1, 2, 2.5, 5, 10])
    ticks = [float(tick) for tick in locator.tick_values(low, high)]
    if widen:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    scale = _Scale(low, high, start, end)
    within = (tick for tick in ticks if low <= tick <= high)
    return tuple(Tick(scale(tick), _tick_label(tick)) for tick in within), scale


def _tick_label(tick: float) -> str:
    """Return the shortest text, with k for thousands and M for millions."""
    unit, suffix = next((pair for pair in UNITS if abs(tick) >= pair[0]), (1, ""))
    return f"{tick / unit:g}{suffix}"


def _line(series: Series, to_x: _Scale, to_y: _Scale) -> Line:
    positions = [(to_x(x), to_y(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in positions)
    shown = zip(positions, series.points, strict=True) if series.measured else ()
    dots = tuple(
        (x, y, f"{series.name}, step {number(step)}: {number(value)}")
        for (x, y), (step, value) in shown
    )
    return Line(series, path, dots, number(series.points[-1][1]))
