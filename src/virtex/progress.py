"""The progress bar of all long work, on stderr.

Only the main process draws it, and only on a terminal. A bar that starts while another one runs
replaces it until it ends.
"""

import contextlib
import io
import sys
from collections.abc import Iterable, Iterator
from typing import Self, TextIO, TypeVar, cast

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
"""Running bars, the innermost last; only that one is drawn."""


class ProgressBar:
    """A progress bar with counts, speed and remaining time.

    Args:
        title: Text before the bar.
        total: Number of units; None if unknown.
        unit: Plural noun of the units; `bytes` are shown as megabytes.
        start: Number of units that were finished before.
        stream: Stream to draw on instead of stderr.
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
        file = cast(TextIO, _Unfailing(stream or sys.stderr))
        forced = None if file.isatty() else False  # or FORCE_COLOR, of CI and Jupyter, makes it one
        self.console = Console(
            file=file,
            force_terminal=forced,
            quiet=not distributed.is_main(),
            soft_wrap=True,
        )
        self.is_live = self.console.is_interactive and distributed.is_main()
        self._bar = Progress(
            *_columns(unit),
            console=self.console,
            transient=True,
            disable=not self.is_live,
            redirect_stdout=sys.stdout is not None
            and sys.stdout.isatty(),  # or lines meant for a file would go to stderr
        )
        self._task = self._bar.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> Self:
        if _shown:
            _shown[-1]._bar.stop()
        _shown.append(self)
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        _shown.remove(self)
        if _shown:
            _shown[-1]._bar.start()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as finished."""
        self._bar.advance(self._task, count)

    def reach(self, completed: int) -> None:
        """Set the total number of finished units."""
        self._bar.update(self._task, completed=completed)

    def note(self, text: str) -> None:
        """Show a short text after the bar."""
        self._bar.update(self._task, note=text)

    def say(self, text: str) -> None:
        """Write a line above the bar, also without a terminal."""
        self.console.print(text, markup=False, highlight=False)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar during the block, for other output."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


class _Unfailing:
    """A stream whose failures to write are passed over: output is never worth the run.

    A disk is full, a reader or a terminal has gone, or the stream is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # closed
            return False

    def fileno(self) -> int:
        return self._stream.fileno()


def tracked(
    items: Iterable[Item], title: str, total: int, *, unit: str = "images", each: int = 1
) -> Iterator[Item]:
    """Yield the items, with a bar that shows the number of finished units.

    Args:
        total: Number of units in all items.
        each: Units in an item; the last one may have fewer.
    """
    with ProgressBar(title, total, unit=unit) as bar:
        for number, item in enumerate(items, start=1):
            yield item
            bar.reach(min(number * each, total))


def _columns(unit: str) -> list[ProgressColumn]:
    in_bytes = unit == "bytes"
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TransferSpeedColumn() if in_bytes else _Speed(unit),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    ]


class _Speed(ProgressColumn):
    """Number of units finished per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} {self.unit}/s" if task.speed else "")
