"""The list of the bad examples that training met and replaced, a JSON line each."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from virtex import files

log = logging.getLogger("virtex")
NAME = "faults.jsonl"


class FaultLog:
    """Appends to faults.jsonl, or faults.R.jsonl in process R > 0, since only one may append.

    Args:
        start_step: Later steps are computed again, so what is listed of them is removed.
    """

    def __init__(self, folder: Path, *, rank: int = 0, start_step: int = 0) -> None:
        self.path = folder / (f"faults.{rank}.jsonl" if rank else NAME)
        self._has_failed = False
        if self.path.exists():
            self._keep_until(start_step)

    def add(self, step: int, faults: Iterable[tuple[str, str]]) -> None:
        """Append the id and reason of each bad example of a step.

        Training goes on if they cannot be written, which is logged once.
        """
        lines = [
            json.dumps({"step": step, "id": image_id, "reason": reason})
            for image_id, reason in faults
        ]
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                files.append(file, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            if not self._has_failed:
                log.error("cannot write %s: %s. Training goes on.", self.path, error.strerror)
            self._has_failed = True

    def _keep_until(self, step: int) -> None:
        """Remove the lines of later steps, and one that is not whole."""
        with self.path.open("rb") as file:
            lines = file.readlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if len(kept) < len(lines):
            files.write(self.path, b"".join(kept))


def _step_of(line: bytes) -> float:
    """Return the step of a line; infinity if it is not whole."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")
