"""A file of captions that grows as they come, and that a later call goes on with.

CSV and JSON lines are appended to. A JSON list cannot be: its rows are kept in FILE.partial, as
JSON lines, and become the list at the end.
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from virtex.errors import ConfigError, DataError
from virtex.predict.caption_files.growing_file import GrowingFile
from virtex.predict.caption_files.options import OutFormat
from virtex.predict.caption_files.rows import (
    RowFormat,
    RowLayout,
    encode_header,
    encode_rows,
    read_rows,
)
from virtex.predict.caption_files.settings import (
    ANEW,
    check_settings,
    replace_file,
    settings_path,
    write_settings,
)
from virtex.predict.predictor import Caption

log = logging.getLogger("virtex")


def check_writable(out: Path | None, *, folder: Path | None = None) -> None:
    """See that a file, and files in a folder, can be written; missing folders are made.

    Raises:
        ConfigError: They cannot.
    """
    problems = []
    if out is not None and out.is_dir():
        problems.append(f"{out} is a folder: name a file in it")
    elif out is not None and out.exists() and not out.is_file():
        problems.append(f"{out} is no ordinary file")
    elif out is not None and out.exists() and not os.access(out, os.W_OK):
        problems.append(f"{out} may not be written to")
    for place in [*([out.parent] if out is not None else []), *([folder] if folder else [])]:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            problems.append(f"nothing can be written in {place} ({error.strerror})")
    if problems:
        raise ConfigError(f"{'; '.join(problems)}. Choose another place.")


class CaptionWriter:
    """Appends captions to a file; entered, it closes the file, and finishes it if all went well.

    Args:
        out: The file.
        settings: What may change the captions, as plain values.
        num_captions: Of each image, at most.
        overwrite: Start anew, whatever is in the file.

    Raises:
        ConfigError: Another process writes the file, or it holds captions that were written with
            other settings.
        DataError: The file is damaged, or cannot be written.
    """

    def __init__(
        self,
        out: Path,
        layout: RowLayout,
        *,
        out_format: OutFormat,
        settings: dict[str, Any],
        num_captions: int = 1,
        overwrite: bool = False,
    ) -> None:
        out = out.resolve()  # a link stays one
        self.out, self.layout, self.num_captions = out, layout, num_captions
        self.is_list = out_format == "json"
        self.row_format: RowFormat = "csv" if out_format == "csv" else "jsonl"
        self.path = out.with_name(f"{out.name}.partial") if self.is_list else out
        self._file = GrowingFile(self.path)
        try:
            if overwrite:
                self._begin_anew()
            if any(path.is_file() and path.stat().st_size for path in (out, self.path)):
                check_settings(out, settings)
            else:
                write_settings(out, settings)
            self.kept = frozenset(self._kept())
            """Images whose captions are in the file already."""
        except BaseException:
            self._close()
            raise

    def write(self, captioned: Sequence[tuple[str, Sequence[Caption]]]) -> None:
        """Append the captions of some images, and hand them to the system.

        Raises:
            DataError: The disk is full, or gone.
        """
        rows = [row for image, captions in captioned for row in self.layout.rows(image, captions)]
        is_new = self._file.num_bytes() == 0
        header = encode_header(self.layout, self.row_format) if is_new else b""
        self._file.append(header + encode_rows(rows, self.row_format))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.is_list:
                self._write_list()
        finally:
            self._close()

    def _begin_anew(self) -> None:
        self._file.truncate(0)
        for path in (settings_path(self.out), *([self.out] if self.is_list else [])):
            path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self.is_list and self._file.num_bytes() == 0:
            self._file.remove()
        else:
            self._file.close()

    def _kept(self) -> set[str]:
        """The images in the file, whose end is mended."""
        names = {entry["image"] for entry in self._entries()} if self.is_list else set()
        last, last_start, num_rows, end = "", 0, 0, 0
        for row, row_end in read_rows(self.path, self.layout, self.row_format):
            if row["image"] != last:
                last, last_start, num_rows = row["image"], end, 0
            num_rows, end = num_rows + 1, row_end
            names.add(last)
        if num_rows and num_rows < self.num_captions:  # more may have been to come
            names.discard(last)
            end = last_start
        if end < self._file.num_bytes():
            log.info("mending the end of %s, where an earlier call was cut", self.path)
            self._file.truncate(end)
        return names

    def _entries(self) -> list[dict[str, Any]]:
        """What the list holds already."""
        if not self.out.is_file() or not self.out.stat().st_size:
            return []
        try:
            entries = json.loads(self.out.read_text(encoding="utf-8"))
            assert all(isinstance(entry["image"], str) for entry in entries)
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise DataError(f"{self.out} is no list of captions: {ANEW}.") from error
        return cast(list[dict[str, Any]], entries)

    def _write_list(self) -> None:
        """The list as it was, and the new rows, whole or not at all."""
        entries = self._entries()
        known = {entry["image"] for entry in entries}  # a kill may have left their rows as well
        for row, _ in read_rows(self.path, self.layout, self.row_format):
            if row["image"] in known:
                continue
            if not self.layout.is_ranked:
                entries.append(row)
                continue
            if row.pop("rank") == 0:
                entries.append({"image": row["image"], "captions": []})
            entries[-1]["captions"].append({name: row[name] for name in row if name != "image"})
        replace_file(self.out, json.dumps(entries, indent=1) + "\n")
        self._file.truncate(0)
