"""Lines on the terminal while sections run: figures as they come, and the time that is left."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu.jobs import ENDS, Event, Events
from benchmarks.gpu.report import cell
from benchmarks.gpu.runner import Section

QUIET = 20.0
"""Seconds without news after which a line says what is going on."""


class Progress:
    """Prints each new event, and writes the report after it.

    Args:
        end: Time at which everything ends, of time.time().
        report: Writes the report.
    """

    def __init__(self, events: Events, *, end: float, report: Callable[[], None]) -> None:
        self.events, self.end, self.report = events, end, report
        self.began = self.last = time.time()
        self.section: Section | None = None
        self.num_seen = 0

    def begin(self, section: Section, number: int, count: int, *, seconds: float) -> None:
        """Say that a section begins, and how long it may take."""
        self.section, self.num_seen = section, 0
        self._say(f"{section.title} ({number + 1} of {count}), at most {_clock(seconds)}")

    def watch(self) -> None:
        """Print what is new in the section's events."""
        assert self.section is not None
        events = self.events.of(self.section.name)
        fresh, self.num_seen = events[self.num_seen :], len(events)
        for event in fresh:
            if text := _told(event):
                self._say("  " + text)
        if fresh:
            self.report()
        elif time.time() - self.last > QUIET:
            job = self.events.unfinished(self.section.name)
            self._say(f"  ... {job['job'] if job else 'starting'}")

    def finish(self, path: Path) -> None:
        """Write the last report and say where it is."""
        self.report()
        self._say(f"done: {path}")

    def _say(self, text: str) -> None:
        self.last = time.time()
        spent, left = self.last - self.began, max(self.end - self.last, 0)
        print(f"[{_clock(spent)}, {_clock(left)} left] {text}", file=sys.stderr, flush=True)


def _told(event: Event) -> str:
    """Return the line for an event; empty for those that need none."""
    if event["kind"] == "row":
        figures = {name.replace("_", " "): cell(value) for name, value in event["row"].items()}
        return ", ".join(f"{name} {text}" for name, text in figures.items() if text)
    if event["kind"] in ENDS and event["kind"] != "finished":
        return f"{event['job']}: {event['kind']}: {event['text']}"
    return ""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
