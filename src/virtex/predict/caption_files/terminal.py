"""What `virtex caption` shows: captions on stdout, what went wrong and how far it is on stderr."""

import logging
import re
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from virtex.errors import DataError
from virtex.predict.predictor import Caption

log = logging.getLogger("virtex")

BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would end a line, or speak to the terminal."""


def print_captions(captioned: Sequence[tuple[str, Sequence[Caption]]]) -> None:
    """A line `path<TAB>caption` on stdout for each caption of each image.

    Raises:
        DataError: The disk to which stdout goes is full.
    """
    encoding = sys.stdout.encoding or "utf-8"
    for name, captions in captioned:
        for caption in captions:
            line = f"{_on_a_line(name)}\t{_on_a_line(caption.text)}"
            line = line.encode(encoding, "backslashreplace").decode(encoding)
            try:
                print(line, flush=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise DataError(f"cannot write to stdout: {error.strerror}.") from error


def report_bad(bad_images: Sequence[tuple[str, str]], progress: Progress) -> None:
    """Name images that cannot be read, and why."""
    _report([f"left out: bad image {name}: {reason}" for name, reason in bad_images], progress)


def report_without(names: Sequence[str], progress: Progress) -> None:
    """Name images of which no caption was found."""
    _report([f"left out: no caption was found for {name}" for name in names], progress)


def progress_bar() -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # or lines meant for a file would go to stderr
    )


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} images/s" if task.speed else "")


def _report(messages: Sequence[str], progress: Progress) -> None:
    if messages:
        progress.stop()  # or its line and ours would mix
        for message in messages:
            log.warning("%s", _on_a_line(message))
        progress.start()


def _on_a_line(text: str) -> str:
    return BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
