"""Checkpoints: written so that no crash costs the one before, read without trusting them.

A file is a torch zip of plain values: `version`, `step`, and what the caller put in. It is written
atomically; older ones are removed only after it is on the disk. It is read with weights_only=True,
after its zip checksums were verified (torch itself skips them).
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch

from virtex import files
from virtex.errors import CheckpointError

VERSION = 1
NAME = re.compile(r"step_(\d{8,})\.pt")
log = logging.getLogger(__name__)


def save(path: Path, values: dict[str, Any]) -> None:
    """Write a checkpoint, all of it or nothing.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    with files.replacing(path, error=CheckpointError) as temporary, temporary.open("wb") as file:
        torch.save({"version": VERSION, **values}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: Missing, damaged, or written by a newer version of this package.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}.")
    damage = files.zip_damage(path)  # which torch.load does not look for
    if damage is not None:
        raise DamagedError(f"{path} is damaged: {damage}")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not what it seems
        raise DamagedError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or holds more than "
            "weights and plain values; nothing in it was run"
        ) from error
    check_version(values, path)
    return values


def check_version(values: Any, path: Path) -> None:
    """Refuse what is no checkpoint, or one that a newer version of this package wrote.

    Raises:
        CheckpointError: Says which.
    """
    version = values.get("version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise CheckpointError(f"{path} is no checkpoint of a virtex run (it has no version).")
    if version > VERSION:
        raise CheckpointError(
            f"{path} has format {version}, this package reads up to {VERSION}: upgrade virtex."
        )


class DamagedError(CheckpointError):
    """A checkpoint that is cut short, or whose checksums fail."""


class CheckpointFolder:
    """The checkpoints of one run, named by their step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def at(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.path / f"step_{step:08d}.pt"

    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, oldest first; temporary files do not count."""
        found = [NAME.fullmatch(file.name) for file in self.path.glob("step_*.pt")]
        return sorted(int(match[1]) for match in found if match)

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Raises:
            CheckpointError: All are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return load(self.at(step))
            except DamagedError as error:
                log.warning("%s; falling back to the checkpoint before it.", error)
        if steps:
            raise CheckpointError(
                f"all {len(steps)} checkpoints in {self.path} are damaged. Move the folder away to "
                "begin anew."
            )
        return None

    def remove_temporary(self) -> None:
        """Remove what earlier versions left behind when they were killed while writing."""
        for file in self.path.glob("step_*.pt.tmp"):
            file.unlink()

    def prune(self, *, newest: int, keep: int, keep_every: int) -> None:
        """Keep the last `keep` checkpoints up to step `newest`, and multiples of `keep_every`.

        Later ones are left alone: where the run fell back behind them they are damaged, and must
        not push a good one out. `keep` 0 keeps all.
        """
        if keep == 0:
            return
        steps = [step for step in self.steps() if step <= newest]
        for step in steps[:-keep]:
            if not (keep_every and step % keep_every == 0):
                self.at(step).unlink()
