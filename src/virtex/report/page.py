"""Content of the report in both formats, and the text form of quantities."""

from dataclasses import dataclass

from virtex.report.charts import Chart
from virtex.report.comparisons import Comparison
from virtex.report.findings import Run

NextStep = tuple[str, str]
"""A purpose, and the command for it."""


@dataclass(frozen=True)
class RunPage:
    """A run with its facts and charts."""

    run: Run
    facts: tuple[tuple[str, str], ...]
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Page:
    """Content of a report."""

    title: str
    comparisons: tuple[Comparison, ...]
    runs: tuple[RunPage, ...]
    timings: tuple[tuple[str, float], ...]
    """Name and seconds of each stage."""
    next_steps: tuple[NextStep, ...]
    version: str
    problems: tuple[str, ...] = ()
    """What was left out, by file and reason."""

    @property
    def num_results(self) -> int:
        """Number of transfer results."""
        return sum(len(comparison.scores) for comparison in self.comparisons)


def duration(seconds: float) -> str:
    """Format seconds as `4.2 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def signed(value: float, *, decimals: int = 1) -> str:
    """Format a difference with its sign, and a minus sign instead of a hyphen."""
    return f"{value:+.{decimals}f}".replace("-", "−")
