"""The progress bar of all long work, on stderr: how far it is, how fast, and when it will end.

It is drawn on a terminal and by the main process alone; elsewhere it is quiet. A bar within the
work of another one takes its line, and gives it back in the end.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from virtex import distributed

Item = TypeVar("Item")
_shown: list["ProgressBar"] = []
"""Bars whose work is under way, the innermost one last: it alone is drawn."""


class ProgressBar:
    """A bar with counts, speed and remaining time.

    Args:
        title: What is done.
        total: How many there are; None where nobody knows.
        unit: What is counted; `bytes` shows megabytes.
        start: How many were finished before.
        stream: Where to draw instead of stderr.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        unit: str = "images",
        start: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self.console = Console(
            file=stream or sys.stderr, quiet=not distributed.is_main(), soft_wrap=True
        )
        self.is_live = self.console.is_interactive and distributed.is_main()
        self._bar = Progress(
            *_columns(unit),
            console=self.console,
            transient=True,
            disable=not self.is_live,
            redirect_stdout=sys.stdout.isatty(),  # or lines meant for a file would go to stderr
        )
        self._task = self._bar.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> Self:
        if _shown:
            _shown[-1]._bar.stop()
        _shown.append(self)
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
        _shown.remove(self)
        if _shown:
            _shown[-1]._bar.start()

    def advance(self, count: int = 1) -> None:
        """Count `count` more as finished."""
        self._bar.advance(self._task, count)

    def reach(self, completed: int) -> None:
        """Set how many are finished in all."""
        self._bar.update(self._task, completed=completed)

    def note(self, text: str) -> None:
        """Show a few words behind the bar."""
        self._bar.update(self._task, note=text)

    def say(self, text: str) -> None:
        """Write a line above the bar, or alone where there is no terminal."""
        self.console.print(text, markup=False, highlight=False)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Clear the line for other output, and draw the bar again after it."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


def tracked(
    items: Iterable[Item], title: str, total: int, *, unit: str = "images", each: int = 1
) -> Iterator[Item]:
    """Yield the items while a bar shows how many of them are finished.

    Args:
        total: How many units there are in all.
        each: Units in an item; the last one may hold fewer.
    """
    with ProgressBar(title, total, unit=unit) as bar:
        for number, item in enumerate(items, start=1):
            yield item
            bar.reach(min(number * each, total))


def _columns(unit: str) -> list[ProgressColumn]:
    counts: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()]
        if unit == "bytes"
        else [MofNCompleteColumn(), _Speed(unit)]
    )
    remaining = TimeRemainingColumn(compact=True)
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *counts,
        remaining,
        TextColumn("{task.fields[note]}", markup=False),
    ]


class _Speed(ProgressColumn):
    """How many units are finished in a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} {self.unit}/s" if task.speed else "")
