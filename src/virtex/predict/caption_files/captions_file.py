"""A file of captions that is written batch by batch, and resumed after an interruption.

Captions are appended as JSON lines: to FILE.jsonl itself, or to FILE.csv.partial or
FILE.json.partial, which is converted at the end and removed. If the process is killed, the last
JSON line may be cut, or the JSON lines remain beside a converted file with the same captions.
FILE.settings.json holds the options; a later call with other options appends nothing.
"""

import contextlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from virtex import files
from virtex.config import flat
from virtex.errors import ConfigError, DataError, listing
from virtex.options.bounded_yaml import load_json
from virtex.predict.caption_files import rows
from virtex.predict.results import Caption

log = logging.getLogger("virtex")

MAX_SETTINGS_BYTES = 2**20
WRITERS = {"json": rows.write_json, "csv": rows.write_csv}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file to write; `.FILE.lock` names the process that holds the lock.

    Raises:
        ConfigError: Another process holds the lock, or `path` is not an ordinary file.
        DataError: The lock file cannot be written.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no ordinary file"
        raise ConfigError(f"{path} is {kind}: give the name of a file to write.")
    path = Path(os.path.realpath(path))  # a link stays: its target is locked and written
    with files.locked(path.with_name(f".{path.name}.lock"), subject=str(path)):
        yield


class CaptionsFile:
    """A file of captions, which may hold some of an earlier call.

    Args:
        path: The file, which the caller has locked.
        out_format: jsonl, json or csv.
        settings: All options that may change the captions, as plain values.
        overwrite: Delete the captions of an earlier call.

    Raises:
        ConfigError: The captions of an earlier call have other settings, or cannot be read.
        DataError: The captions of an earlier call are damaged, or the file cannot be written.
    """

    def __init__(
        self, path: Path, out_format: str, settings: dict[str, Any], *, overwrite: bool = False
    ) -> None:
        self.path = path = path.resolve()
        self.convert_rows = WRITERS.get(out_format)
        self.lines_path = path.with_name(f"{path.name}.partial") if self.convert_rows else path
        self.settings_path = path.with_name(f"{path.name}.settings.json")
        self.columns = rows.columns_of(
            settings["num_captions"], is_reranked=settings["decoding"]["backward_weight"] > 0
        )
        if overwrite:
            for one in (self.path, self.lines_path, self.settings_path):
                one.unlink(missing_ok=True)
        if _holds_some(self.path) or _holds_some(self.lines_path):
            self._check_settings(settings)
        else:
            files.write(self.settings_path, json.dumps(settings, indent=1) + "\n")
        self.kept = frozenset(self._resume(settings["num_captions"]))
        """Images that have captions from an earlier call."""

    def append(self, captioned: Sequence[tuple[str, Sequence[Caption]]]) -> None:
        """Append the captions of images, all or none."""
        if captioned:
            lines = [rows.encode_lines(rows.rows_of(*one, self.columns)) for one in captioned]
            with (
                files.write_errors(self.lines_path),
                self.lines_path.open("ab", buffering=0) as file,
            ):
                files.append(file, b"".join(lines))

    def convert(self) -> None:
        """Convert the JSON lines to a JSON list or CSV, and remove them."""
        if self.convert_rows is not None and self.lines_path.exists():
            with files.replacing(self.path) as temporary:
                self.convert_rows(temporary, self._rows(), self.columns)
            self.lines_path.unlink()

    def _check_settings(self, settings: dict[str, Any]) -> None:
        try:
            text = files.read_text(self.settings_path, most=MAX_SETTINGS_BYTES)
            kept = flat(load_json(text, self.settings_path.name))
        except (DataError, ConfigError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} is not empty, and {self.settings_path.name} does not say which model "
                f"and options wrote it ({error}): {rows.RESTART}."
            ) from error
        given = flat(json.loads(json.dumps(settings)))
        differences = [
            f"{name} {kept.get(name)!r}, now {given.get(name)!r}"
            for name in {**kept, **given}
            if kept.get(name) != given.get(name)
        ]
        if differences:
            raise ConfigError(
                f"the captions in {self.path} were written with other settings "
                f"({listing(differences, limit=8)}): give the same, {rows.RESTART}."
            )

    def _resume(self, num_captions: int) -> set[str]:
        """Collect all captions of an earlier call in the JSON lines, and return their images."""
        kept = self._mend(num_captions) if self.lines_path.exists() else set()
        if self.convert_rows is not None and _holds_some(self.path):
            converted = rows.read_converted(self.path, self.columns)
            missing = [row for row in converted if row["image"] not in kept]
            if missing:
                files.write(self.lines_path, rows.encode_lines([*missing, *self._rows()]))
            kept.update(row["image"] for row in missing)
        return kept

    def _mend(self, num_captions: int) -> set[str]:
        """Remove an incomplete line or image at the end, and return the complete images."""
        counts, ends = Counter[str](), dict[str, int]()
        for row, row_end in rows.read_lines(self.lines_path, self.columns):
            counts[row["image"]] += 1
            ends[row["image"]] = row_end
        last = next(reversed(ends), None)
        if last is not None and counts[last] < num_captions:  # its captions may be incomplete
            del ends[last]
        end = max(ends.values(), default=0)
        if end < self.lines_path.stat().st_size:
            log.info("removing an incomplete image from the end of %s", self.lines_path)
            with files.write_errors(self.lines_path):
                os.truncate(self.lines_path, end)
        return set(ends)

    def _rows(self) -> Iterator[rows.Row]:
        if self.lines_path.exists():
            yield from (row for row, _ in rows.read_lines(self.lines_path, self.columns))


def _holds_some(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
