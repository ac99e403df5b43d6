"""A section's jobs, and the file of events through which they tell what they measured.

Each line of the file is one event: of a `section`, a `kind`, mostly of a `job`. A process that dies
thus leaves all that it measured.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, str | int | float]
"""One line of a section's table: figures by name."""
Event = dict[str, Any]
ENDS = ("finished", "failed", "skipped")


class Skipped(Exception):  # noqa: N818 (no error)
    """A job that cannot be done here; says why."""


class Cut(RuntimeError):  # noqa: N818 (as above)
    """A measurement that was stopped before it had a figure; no fault if time was up."""


@dataclass(frozen=True)
class Job:
    """One measurement: a function from the seconds that are left to rows."""

    name: str
    run: Callable[[float], Iterable[Row]]
    needs: float = 0.0
    """Seconds below which it is not worth beginning."""
    limit: float = 120.0
    """Seconds after which it counts as hanging, and its process is ended."""


@dataclass(frozen=True)
class Events:
    """The file of events."""

    path: Path

    def add(self, section: str, kind: str, job: str = "", **values: Any) -> None:
        """Append an event."""
        event = {"section": section, "kind": kind, "job": job, "time": time.time(), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def of(self, section: str, *kinds: str) -> list[Event]:
        """Return a section's events, or those of some kinds."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [
            event
            for event in events
            if event["section"] == section and (not kinds or event["kind"] in kinds)
        ]

    def rows(self, section: str) -> list[Row]:
        """Return the lines of a section's table so far."""
        return [event["row"] for event in self.of(section, "row")]

    def unfinished(self, section: str) -> Event | None:
        """Return the beginning of the job that has no end yet."""
        ended = {event["job"] for event in self.of(section, *ENDS)}
        begun = [event for event in self.of(section, "begin") if event["job"] not in ended]
        return begun[-1] if begun else None

    def problems(self, section: str) -> list[tuple[str, str]]:
        """Return the jobs that failed, were skipped or were not begun, each with the reason."""
        begun = {event["job"] for event in self.of(section, "begin", *ENDS)}
        planned = [name for event in self.of(section, "plan")[:1] for name in event["jobs"]]
        ends = [
            (event["job"], f"{event['kind']}: {event['text']}")
            for event in self.of(section, "failed", "skipped")
        ]
        left = [(name, "skipped: no time left") for name in planned if name not in begun]
        return ends + left
