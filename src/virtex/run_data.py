"""RUN/data.json: what a run is made from, so that a resume notices other data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Self

from virtex import files
from virtex.data.fingerprint import Fingerprint, differences
from virtex.errors import DataError

VERSION = 1
"""Version of the fingerprints; those of another version are not compared."""


@dataclass(frozen=True)
class RunData:
    """Fingerprints of a run's data, and digests of the files that its options name."""

    train: Fingerprint
    validation: Fingerprint | None = None
    files: Mapping[str, str | None] = field(default_factory=dict)
    """SHA-256 of each file by the option that names it."""
    num_epochs: float | None = None
    """Epochs from which the number of steps was computed when the run began."""
    num_processes: int | None = None
    """Number of processes that train it; None if an earlier version began it."""
    changes: tuple[str, ...] = ()
    """Changes of the data that were accepted, in their order."""
    version: int = VERSION

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the data of the run in a folder; None if it was written by an earlier version.

        Raises:
            DataError: The file cannot be read.
        """
        path = _path(folder)
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["version"] != VERSION:
                return None
            values = {"num_processes": None, **values}  # earlier versions did not write it
            found = cls(**{option.name: values[option.name] for option in fields(cls)})
            differences(found.train, found.validation or {})
            dict(found.files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}: {error}). Remove it to let the "
                "data now count as the run's own."
            ) from error
        return found

    def with_file(self, name: str, digest: str) -> Self:
        """Return the data with the digest of one more file."""
        return replace(self, files={**self.files, name: digest})

    def write(self, folder: Path) -> None:
        """Write the file atomically."""
        files.write(_path(folder), json.dumps(asdict(self), indent=1))


def _path(folder: Path) -> Path:
    return folder / "data.json"
