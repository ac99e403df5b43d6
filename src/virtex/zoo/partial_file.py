"""A file that is still arriving, and what is known of it until it is whole.

What has arrived stands in FILE.part; beside it, FILE.part.version holds the validator with which
the server names this version of the file (RFC 9110, section 8.8).
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

try:
    import fcntl
except ImportError:  # not Unix: two processes that fetch one file are not kept apart there
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class PartialFile:
    """Where a file goes, and what lies beside it."""

    path: Path
    """Of the whole file."""

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def version(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part.version")

    def num_bytes(self) -> int:
        """How many have arrived."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def clear(self) -> None:
        """Forget what has arrived."""
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)

    def finish(self) -> None:
        """What has arrived is the whole file."""
        self.part.replace(self.path)
        self.version.unlink(missing_ok=True)

    def sha256(self) -> str:
        """Of what has arrived."""
        with self.part.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def headers(self) -> dict[str, str]:
        """Ask for the rest of this version, or for all of a newer one; without version, for all."""
        if not self.num_bytes() or not self.version.is_file():
            self.clear()
            return {}
        return {"Range": f"bytes={self.num_bytes()}-", "If-Range": self.version.read_text()}

    def note_version(self, headers: Message) -> None:
        """Keep a validator that tells one version from another byte by byte, if there is one."""
        validator = headers.get("ETag", "")
        if not validator or validator.startswith("W/"):
            validator = headers.get("Last-Modified", "")
        if validator:
            self.version.write_text(validator)
        else:
            self.version.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a lock that the system frees when the process ends, however it ends."""
        with self.path.with_name(f".{self.path.name}.lock").open("ab") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
