"""Progress on stderr: a live line on a terminal, one plain line for each record elsewhere."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from virtex import distributed

Record = Mapping[str, int | float | str]


class Progress:
    """Says how far a run is, how fast, and at what loss; the main process alone speaks."""

    def __init__(self, *, start: int, num_steps: int, stream: TextIO | None = None) -> None:
        self.start, self.num_steps = start, num_steps
        self.console = Console(
            file=stream or sys.stderr, quiet=not distributed.is_main(), soft_wrap=True
        )
        columns = [
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[summary]}"),
        ]
        self.bar = RichProgress(
            *columns, console=self.console, disable=not self.console.is_terminal, transient=True
        )
        self.task = self.bar.add_task("", total=num_steps, completed=start, summary="")

    def __enter__(self) -> Self:
        if self.start:
            self.console.print(f"resuming after step {self.start}", highlight=False)
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def advance(self, step: int) -> None:
        """Note that `step` steps are finished; costs nothing where there is no terminal."""
        self.bar.update(self.task, completed=step)

    def record(self, record: Record) -> None:
        """Show a record of log.jsonl."""
        if self.console.is_terminal and "train/loss" in record:
            self.bar.update(self.task, summary=summary(record))
        else:
            line = f"step {record['step']}/{self.num_steps}  {summary(record)}"
            self.console.print(line, markup=False, highlight=False)


def summary(record: Record) -> str:
    """A record in a few words: loss, speed, and share of time waiting for data."""
    if "train/loss" not in record:
        values = [f"{name} {_short(value)}" for name, value in record.items() if name != "step"]
        return "  ".join(values)
    return (
        f"loss {_short(record['train/loss'])}  {_short(record['speed/images_per_second'])} images/s"
        f"  waiting for data {float(record['speed/data_wait']):.0%}"
    )


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
