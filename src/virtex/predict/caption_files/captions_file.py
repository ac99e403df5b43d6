"""A file of captions that grows as they come, and that a later call goes on with.

Captions are appended as JSON lines: to FILE.jsonl itself, or to FILE.csv.partial and
FILE.json.partial, which are converted at the end and removed. A kill can thus leave JSON lines
whose last line is cut, or whole lines beside a converted file that holds nothing else.
FILE.settings.json says with which options the captions were written, so that two kinds are never
mixed.
"""

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from virtex import files
from virtex.config import flat
from virtex.errors import ConfigError, listing
from virtex.predict.caption_files.rows import (
    RESTART,
    Row,
    columns_of,
    encode_lines,
    read_converted,
    read_lines,
    rows_of,
    write_csv,
    write_json,
)
from virtex.predict.results import Caption

log = logging.getLogger("virtex")

WRITERS = {"json": write_json, "csv": write_csv}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from writing a file of captions; `.FILE.lock` names the one that does.

    Raises:
        ConfigError: Another process writes it, or it is no file.
        DataError: Nothing can be written there.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no ordinary file"
        raise ConfigError(f"{path} is {kind}: captions are written to a file; name another.")
    path = path.resolve()  # a link stays one
    with files.locked(path.with_name(f".{path.name}.lock"), subject=str(path)):
        yield


class CaptionsFile:
    """Captions of images, some of them perhaps from an earlier call.

    Args:
        path: The file, which the caller has locked.
        out_format: jsonl, or what the JSON lines are converted to: json or csv.
        settings: All options that may change the captions, as plain values.
        overwrite: Start again, whatever is there.

    Raises:
        ConfigError: The captions of an earlier call have other settings, or cannot be read.
        DataError: They are damaged, or nothing can be written.
    """

    def __init__(
        self, path: Path, out_format: str, settings: dict[str, Any], *, overwrite: bool = False
    ) -> None:
        self.path = path = path.resolve()
        self.convert_rows = WRITERS.get(out_format)
        partial = path.with_name(f"{path.name}.partial")
        self.lines_path = path if self.convert_rows is None else partial
        self.settings_path = path.with_name(f"{path.name}.settings.json")
        self.columns = columns_of(
            settings["num_captions"], is_reranked=settings["decoding"]["backward_weight"] > 0
        )
        self._file: io.FileIO | None = None
        if overwrite:
            for one in (self.path, self.lines_path, self.settings_path):
                one.unlink(missing_ok=True)
        if _holds_some(self.path) or _holds_some(self.lines_path):
            self._check_settings(settings)
        else:
            files.write(self.settings_path, json.dumps(settings, indent=1) + "\n")
        self.kept = frozenset(self._resume(settings["num_captions"]))
        """Images that have captions already."""

    def append(self, captioned: Sequence[tuple[str, Sequence[Caption]]]) -> None:
        """Append the captions of some images: all of them or nothing.

        Raises:
            DataError: The disk is full, or gone.
        """
        lines = [encode_lines(rows_of(*one, columns=self.columns)) for one in captioned]
        if lines:
            with files.telling(self.lines_path):
                self._file = self._file or self.lines_path.open("ab", buffering=0)
                files.append(self._file, b"".join(lines))

    def close(self) -> None:
        """Close the JSON lines."""
        if self._file is not None:
            self._file.close()

    def convert(self) -> None:
        """Make a JSON list or CSV of the JSON lines, and remove these."""
        self.close()
        if self.convert_rows is not None and self.lines_path.exists():
            with files.replacing(self.path) as temporary:
                self.convert_rows(temporary, self._rows(), self.columns)
            self.lines_path.unlink()

    def _check_settings(self, settings: dict[str, Any]) -> None:
        path = self.settings_path
        try:
            kept = flat(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} holds something already, and {path.name} does not say which model "
                f"and options wrote it ({error}): {RESTART}."
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
                f"({listing(differences, limit=8)}): give the same, {RESTART}."
            )

    def _resume(self, num_captions: int) -> set[str]:
        """Bring all captions of an earlier call into the JSON lines; return their images."""
        kept = self._mend(num_captions) if self.lines_path.exists() else set()
        if self.convert_rows is not None and _holds_some(self.path):
            converted = read_converted(self.path, self.columns)
            missing = [row for row in converted if row["image"] not in kept]
            if missing:
                files.write(self.lines_path, encode_lines([*missing, *self._rows()]))
            kept.update(row["image"] for row in missing)
        return kept

    def _mend(self, num_captions: int) -> set[str]:
        """Cut off what a kill left of the last line or image; return the images that are whole."""
        names: set[str] = set()
        last, start, count, end = None, 0, 0, 0
        for row, row_end in read_lines(self.lines_path, self.columns):
            if row["image"] != last:
                last, start, count = row["image"], end, 0
            count, end = count + 1, row_end
            names.add(row["image"])
        if last is not None and count < num_captions:  # more may have been to come
            names.discard(last)
            end = start
        if end < self.lines_path.stat().st_size:
            log.info("mending the end of %s, where an earlier call was cut", self.lines_path)
            with files.telling(self.lines_path):
                os.truncate(self.lines_path, end)
        return names

    def _rows(self) -> Iterator[Row]:
        if self.lines_path.exists():
            yield from (row for row, _ in read_lines(self.lines_path, self.columns))


def _holds_some(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
