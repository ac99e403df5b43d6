"""What both forms of the report show, and how quantities read in them."""

from dataclasses import dataclass

from virtex.report.charts import Chart
from virtex.report.comparisons import Comparison
from virtex.report.findings import Run

NextStep = tuple[str, str]
"""What a reader may want, and the command that does it."""


@dataclass(frozen=True)
class RunPage:
    """A run with what is derived from it."""

    run: Run
    facts: tuple[tuple[str, str], ...]
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Page:
    """Everything that a report shows."""

    title: str
    comparisons: tuple[Comparison, ...]
    runs: tuple[RunPage, ...]
    timings: tuple[tuple[str, float], ...]
    """Stage and its seconds."""
    next_steps: tuple[NextStep, ...]
    version: str

    @property
    def num_results(self) -> int:
        """How many transfer results there are."""
        return sum(len(comparison.scores) for comparison in self.comparisons)


def duration(seconds: float) -> str:
    """Seconds as people say them: `4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def signed(value: float, *, decimals: int = 1) -> str:
    """A difference with its sign, a true minus."""
    return f"{value:+.{decimals}f}".replace("-", "−")
