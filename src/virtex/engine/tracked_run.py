"""Identity of a run on a dashboard, and how many of its records are there; kept in the run folder.

A process that starts without torch reads and writes it, too.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from virtex import files
from virtex.errors import DataError

NAME = "tracking.json"
MOST_BYTES = 2**20
TRACKERS = ("trackio", "wandb")


@dataclass(frozen=True)
class TrackedRun:
    """A run on the dashboard of trackio or wandb."""

    tracker: str
    project: str
    name: str
    """Name of the run folder and `id`, so that it is unique in the project."""
    id: str
    options: str
    """Digest of the options that the run began with."""
    step: int = 0
    """Step of the last record that was sent."""
    num_records: int = 0
    """Number of records of that step that were sent."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Options and environment, as the dashboard shows them."""

    @classmethod
    def create(cls, folder: Path, *, tracker: str, project: str, options: str) -> Self:
        """Return the identity of a run that is new on the dashboard."""
        number = secrets.token_hex(4)
        return cls(tracker, project, f"{folder.resolve().name}-{number}", number, options)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the identity that a run folder holds; None if it has none that can be read."""
        try:
            values = json.loads(files.read_text(folder / NAME, most=MOST_BYTES))
            tracked = cls(**values)
        except (DataError, ValueError, TypeError):
            return None
        texts = (tracked.project, tracked.name, tracked.id, tracked.options)
        is_whole = all(isinstance(text, str) for text in texts) and tracked.tracker in TRACKERS
        counts = (tracked.step, tracked.num_records)
        is_whole = is_whole and all(type(count) is int for count in counts)
        return tracked if is_whole and isinstance(tracked.facts, dict) else None

    def write(self, folder: Path) -> None:
        """Write the identity to a run folder, atomically.

        Raises:
            DataError: The file cannot be written.
        """
        files.write(folder / NAME, json.dumps(asdict(self), indent=1) + "\n", durable=False)
