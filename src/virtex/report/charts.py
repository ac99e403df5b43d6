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
MAX_LOG_TICKS = 7
"""Most ticks of a logarithmic axis, whose labels would overlap with more."""
UNITS = ((1e6, "M"), (1e3, "k"))

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]
    """(step, value), or another quantity instead of the step, which ascends."""
    color: int = 0
    """Index of one of the page's colors."""
    measured: bool = False
    """Whether to draw a dashed line with a dot per point, for a few single measurements."""
    deviations: tuple[float, ...] = ()
    """Standard deviation of each point, drawn as a line above and below it; empty for none."""


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
    whiskers: tuple[tuple[float, float, float], ...]
    """x, and the two ends, of each deviation."""
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


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    from_zero: bool = False,
    over: str = "step",
    logarithmic: bool = False,
) -> Chart:
    """Lay out a chart of value over step; each series has at least one point, all finite.

    Args:
        over: Name of the quantity on the horizontal axis.
        logarithmic: Whether the horizontal axis is, whose values must then be above 0.
    """
    steps = [x for one in series for x, _ in one.points]
    values = [value for one in series for value in _extent(one)] + [0.0] * from_zero
    x_ticks, to_x = (_log_axis if logarithmic else axis)(steps, LEFT, WIDTH - RIGHT)
    y_ticks, to_y = axis(values, HEIGHT - BOTTOM, TOP, widen=True)
    lines = tuple(_line(one, to_x, to_y, over) for one in series)
    ends = "; ".join(f"{line.series.name} ends at {line.last}".strip() for line in lines)
    return Chart(title, lines, x_ticks, y_ticks, summary=f"{title} over {over}: {ends}.")


def _extent(series: Series) -> list[float]:
    """Return the values of a series, with those that its deviations reach."""
    values = [y for _, y in series.points]
    pairs = list(zip(values, series.deviations, strict=False))
    return [*values, *(y - half for y, half in pairs), *(y + half for y, half in pairs)]


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
class Scale:
    """A linear map from values, or their logarithms, to coordinates."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.logarithmic else value
        fraction = (value - self.low) / (self.high - self.low)
        return round(self.start + fraction * (self.end - self.start), 1)


def axis(
    values: Sequence[float], start: float, end: float, *, widen: bool = False
) -> tuple[tuple[Tick, ...], Scale]:
    """Return ticks at round values, and the scale; `widen` extends it to the outer ticks."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1), high + (abs(high) or 1)
    locator = MaxNLocator(NUM_TICKS, steps=[1, 2, 2.5, 5, 10])
    ticks = [float(tick) for tick in locator.tick_values(low, high)]
    if widen:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    scale = Scale(low, high, start, end)
    within = (tick for tick in ticks if low <= tick <= high)
    return tuple(Tick(scale(tick), _tick_label(tick)) for tick in within), scale


def _log_axis(values: Sequence[float], start: float, end: float) -> tuple[tuple[Tick, ...], Scale]:
    """Return ticks at 1, 2 and 5 of each power of ten, or at these alone, and the scale."""
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 2)
    ticks: list[float] = []
    for parts in ((1, 2, 5), (1,)):
        marks = [part * 10.0**power for power in powers for part in parts]
        below = [mark for mark in marks if mark <= min(values)]
        above = [mark for mark in marks if mark >= max(values)]
        first, last = below[-1], above[0] if above[0] > below[-1] else 2 * below[-1]
        ticks = [mark for mark in [*marks, last] if first <= mark <= last]
        if len(ticks := sorted(set(ticks))) <= MAX_LOG_TICKS:
            break
    scale = Scale(math.log10(ticks[0]), math.log10(ticks[-1]), start, end, logarithmic=True)
    step = math.ceil(len(ticks) / MAX_LOG_TICKS)
    return tuple(Tick(scale(tick), _tick_label(tick)) for tick in ticks[::step]), scale


def _tick_label(tick: float) -> str:
    """Return the shortest text, with k for thousands and M for millions."""
    unit, suffix = next((pair for pair in UNITS if abs(tick) >= pair[0]), (1, ""))
    return f"{tick / unit:g}{suffix}"


def _line(series: Series, to_x: Scale, to_y: Scale, over: str) -> Line:
    positions = [(to_x(x), to_y(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in positions)
    shown = zip(positions, series.points, strict=True) if series.measured else ()
    dots = tuple(
        (x, y, f"{series.name}, {over} {number(step)}: {number(value)}")
        for (x, y), (step, value) in shown
    )
    whiskers = tuple(
        (to_x(x), to_y(y + half), to_y(y - half))
        for (x, y), half in zip(series.points, series.deviations, strict=False)
        if half
    )
    return Line(series, path, dots, whiskers, number(series.points[-1][1]))
