"""Checkpoints: atomic writes, and reads that run no code.

A file is a torch zip of plain values: `version`, `step` and the caller's. Older files are removed
only after a new one is on the disk. Reading verifies the zip checksums (which torch does not), then
loads with weights_only=True.
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch

from virtex import files
from virtex.errors import CheckpointError
from virtex.zip_damage import zip_damage

VERSION = 1
REMEDY = "Resume with the config that the run began with, or start a new run folder."
"""Remedy for a checkpoint that does not fit the run's options."""
NAME = re.compile(r"step_(\d{8,})\.pt")
log = logging.getLogger(__name__)


def save(path: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    with files.replacing(path, error=CheckpointError) as temporary, temporary.open("wb") as file:
        torch.save({"version": VERSION, **values}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or of a newer version of this package.
    """
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}.") from error
    except OSError as error:  # which is no damage
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    if damage := zip_damage(path):
        raise DamagedError(f"{path} is damaged: {damage}")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise DamagedError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or holds more than "
            "weights and plain values. No code from it was run"
        ) from error
    check_version(values, path)
    return values


def check_version(values: Any, path: Path) -> None:
    """Raise CheckpointError unless this version of the package can read a checkpoint's values."""
    version = values.get("version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise CheckpointError(f"{path} is not a checkpoint of a virtex run: it has no version.")
    if version > VERSION:
        raise CheckpointError(
            f"{path} has format {version}; this package reads up to {VERSION}: upgrade virtex."
        )


class DamagedError(CheckpointError):
    """A checkpoint file that is truncated or fails its checksums."""


class CheckpointFolder:
    """The checkpoints of one run, named by their step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def at(self, step: int) -> Path:
        """Return the path of a step's checkpoint."""
        return self.path / f"step_{step:08d}.pt"

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints in the folder, in ascending order."""
        matches = [NAME.fullmatch(file.name) for file in self.path.glob("step_*.pt")]
        return sorted(int(match[1]) for match in matches if match)

    def latest(self) -> dict[str, Any] | None:
        """Load the newest undamaged checkpoint; None if the folder has no checkpoint.

        Raises:
            CheckpointError: All checkpoints are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return load(self.at(step))
            except DamagedError as error:
                log.warning("%s; falling back to the previous checkpoint.", error)
        if steps:
            raise CheckpointError(
                f"all {len(steps)} checkpoints in {self.path} are damaged. Move the folder away to "
                "start a new run."
            )
        return None

    def remove_temporary(self) -> None:
        """Remove temporary files of earlier versions that were killed while writing."""
        for file in self.path.glob("step_*.pt.tmp"):
            file.unlink()

    def prune(self, *, newest: int, keep: int, keep_every: int) -> None:
        """Remove all but the last `keep` checkpoints and those at multiples of `keep_every`.

        Checkpoints after step `newest` neither count nor are removed: the run fell back from them
        because they are damaged. `keep` 0 keeps all.
        """
        if keep == 0:
            return
        steps = [step for step in self.steps() if step <= newest]
        for step in steps[:-keep]:
            if not (keep_every and step % keep_every == 0):
                self.at(step).unlink()
