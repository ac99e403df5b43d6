"""The folder of the shards: their settings, what is finished, and what was left out.

    train/00000.tar ...        the shards, and their manifest in .virtex-manifest; so for val
    pack.json                  the options and the data of each split
    left_out.jsonl             the examples whose images could not be read
    .virtex-pack/train/00000.json    the counts of each finished shard

A shard is finished if it has the size that its counts state; these are written first.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtex import files
from virtex.data.fingerprint import CLASSES, Fingerprint, differences
from virtex.data.source import Split
from virtex.errors import ConfigError, DataError, raise_all
from virtex.pack.packer import LeftOut, PackedPiece
from virtex.pack.shard_plan import ShardPlan

VERSION = 1
SETTINGS, LEFT_OUT, STATE = "pack.json", "left_out.jsonl", ".virtex-pack"
MAX_BYTES = 2**28
"""Largest settings or counts that are read."""


@dataclass
class ShardCounts:
    """What a shard holds."""

    num_examples: int = 0
    num_bytes: int = 0
    """Size of the tar."""
    num_source_bytes: int = 0
    """Size of the image files that it was made of."""
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, piece: PackedPiece) -> None:
        """Count a piece of the shard."""
        self.num_examples += piece.num_examples
        self.num_bytes += len(piece.tar)
        self.num_source_bytes += piece.num_source_bytes
        self.left_out += piece.left_out


class PackFolder:
    """A folder of shards that this process alone writes."""

    def __init__(self, out: Path) -> None:
        self.out = out

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder's lock, once its settings are known to be these.

        Raises:
            ConfigError: It is in use, was begun with other settings, or holds other files.
        """
        with files.locked(self.out / STATE / "lock", subject=f"the folder {self.out}"):
            before = self._settings()
            if before is None:
                self._check_empty()
            else:
                _check_same(f"{self.out} was begun with other options", [
                    f"{name}: {before['options'].get(name)} before, {settings.get(name)} now"
                    for name in sorted(before["options"].keys() | settings.keys())
                    if before["options"].get(name) != settings.get(name)
                ])  # fmt: skip
            self._document = before or {"version": VERSION, "options": {**settings}, "splits": {}}
            yield

    def num_shards(self, split: Split, data: Fingerprint) -> int | None:
        """Return the number of a split's shards; None for a new split.

        Raises:
            ConfigError: The split was begun with other data.
        """
        before = self._document["splits"].get(split)
        if before is None:
            return None
        _check_same(
            f"the {split} shards in {self.out} were begun with other data",
            differences(before["data"], data),
        )
        return int(before["num_shards"])

    def begin(self, split: Split, data: Fingerprint, *, num_shards: int) -> None:
        """Write down what a split is packed from.

        Raises:
            ConfigError: Its classes are not those of the other split in the folder.
        """
        for other, before in self._document["splits"].items():
            if before["data"].get(CLASSES) != data.get(CLASSES):
                raise ConfigError(
                    f"the {split} images have other classes than the {other} images in {self.out}, "
                    "where a label would mean another class. Give both the same class names, or "
                    "name another --out."
                )
        self._document["splits"][split] = {"num_shards": num_shards, "data": data}
        text = json.dumps(self._document, indent=2) + "\n"
        files.write(self.out / SETTINGS, text)

    def shard_path(self, split: Split, name: str) -> Path:
        """Return the path of a shard."""
        return self.out / split / f"{name}.tar"

    def finished(self, split: Split, plan: ShardPlan) -> dict[int, ShardCounts]:
        """Return the counts of the finished shards of a split."""
        found = {}
        for shard in range(plan.num_shards):
            counts = self._counts(split, plan.name(shard))
            if counts is not None:
                found[shard] = counts
        return found

    def write_counts(self, split: Split, name: str, counts: ShardCounts) -> None:
        """Write the counts of a shard, which is finished as soon as it has its name."""
        document = {**vars(counts), "left_out": [list(one) for one in counts.left_out]}
        files.write(self._counts_path(split, name), json.dumps(document))

    def write_left_out(self, shards: Mapping[Split, Mapping[int, ShardCounts]]) -> None:
        """Write one line for each example that was left out; no file if there are none."""
        lines = [
            json.dumps({"split": split, **one._asdict()})
            for split, counts in shards.items()
            for _, each in sorted(counts.items())
            for one in each.left_out
        ]
        path = self.out / LEFT_OUT
        if lines:
            files.write(path, "\n".join([*lines, ""]))
        else:
            path.unlink(missing_ok=True)

    def _settings(self) -> dict[str, Any] | None:
        path = self.out / SETTINGS
        if not path.exists():
            return None
        try:
            document = json.loads(files.read_text(path, most=MAX_BYTES))
            is_known = document["version"] == VERSION and {*document["splits"]} <= {"train", "val"}
            if is_known and isinstance(document["options"], dict):
                return document
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise DataError(
            f"{path} is damaged or of another version: the options of these shards are unknown. "
            "Name another --out, or delete the folder to pack it again."
        )

    def _check_empty(self) -> None:
        names = sorted(path.name for path in self.out.iterdir() if path.name[0] != ".")
        if names:
            raise ConfigError(
                f"{self.out} is not empty ({names[0]}) and has no {SETTINGS}. Name a new folder "
                "with --out, since all .tar files in it would be read as one data set."
            )

    def _counts_path(self, split: Split, name: str) -> Path:
        return self.out / STATE / split / f"{name}.json"

    def _counts(self, split: Split, name: str) -> ShardCounts | None:
        """Return the counts of a finished shard; None if it is missing or of another size."""
        path = self._counts_path(split, name)
        try:
            size = self.shard_path(split, name).stat().st_size
            document = json.loads(path.read_bytes())
            left_out = [LeftOut(*one) for one in document.pop("left_out")]
            counts = ShardCounts(**document, left_out=left_out)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return counts if counts.num_bytes == size else None


def _check_same(subject: str, changes: list[str]) -> None:
    """Raise a ConfigError if there are changes."""
    remedy = "Give the same options to go on, name another --out, or delete the folder"
    raise_all(ConfigError, f"{subject}. {remedy}", changes)
