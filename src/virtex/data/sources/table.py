"""A table of image paths and captions: CSV, TSV, JSON or Parquet."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from virtex import files
from virtex.data.checks import (
    Problems,
    absent_files,
    is_caption,
    path_inside,
    quoted,
    repaired_paths,
)
from virtex.data.example import Example, ImageFile, Source
from virtex.data.missing_captions import Missing, skip_within_limit, skipped_identity
from virtex.data.packed import PackedLists, PackedStrings
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.data.sources.table_parquet import read_parquet
from virtex.data.sources.table_rows import NOT_UTF8, Columns, Row
from virtex.data.sources.table_text import read_delimited, read_json_lines, read_json_list

READERS: dict[str, Callable[[Path, Columns, str | None], Iterator[Row]]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_delimited,
    ".jsonl": read_json_lines,
    ".json": read_json_list,
    ".parquet": read_parquet,
}
MAX_ERROR = 500
"""Most characters of an error in a message."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""Start of an absolute path in Windows."""


class TableSource(Source):
    """A file of one of the READERS' suffixes with an image path and its captions in each row.

    Rows of the same image are merged; images come in the order of their first rows.

    Args:
        image_root: Folder of the images; by default the table's own.
        image_column: Name of the column; by default the first present of IMAGE_COLUMNS.
        caption_column: Name of the column; by default the first present of CAPTION_COLUMNS.
        encoding: Encoding of a text; by default UTF-8, or what its byte order mark says.
        with_captions: Read captions, and skip rows without one.
        missing_caption_limit: See `SourceConfig`.

    Raises:
        ConfigError: The file is Parquet and pyarrow is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        image_root: Path | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        encoding: str | None = None,
        with_captions: bool = True,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
    ) -> None:
        problems = Problems(f"the table {path}")
        self.path, self.image_root = path, image_root or path.parent
        self._encoding = encoding
        _check_paths(path, self.image_root, problems)
        gathered = _Gathered(self.image_root, with_captions)
        self._columns = Columns(image_column, caption_column, with_captions)
        try:
            for row in READERS[path.suffix.lower()](path, self._columns, encoding):
                gathered.add(row)
        except (OSError, ValueError) as error:
            problems.add(f"It cannot be read: {quoted(error, limit=MAX_ERROR)}.")
        gathered.note(problems, missing_caption_limit)
        problems.check()
        self._sha256 = files.sha256(path)
        kept = gathered.kept()
        self._num_skipped = len(gathered.indices) - len(kept)
        self.image_ids = PackedStrings(kept)
        self._captions = PackedLists(list(kept.values())) if with_captions else None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        name = self.image_ids[index]
        captions = () if self._captions is None else self._captions[index]
        return Example(image_id=name, image=self.image_root / name, captions=captions)

    def image_file(self, index: int) -> ImageFile:
        return ImageFile(f"{self.image_root}/{self.image_ids[index]}")

    def identity(self) -> dict[str, str | int]:
        counts: dict[str, str | int] = {"images": len(self)}
        if self._captions is not None:
            counts["captions"] = len(self._captions.strings)
        counts |= skipped_identity(self._num_skipped)
        if self._encoding is not None:
            counts["encoding"] = self._encoding
        origin = {"source": "table", "table": str(self.path), "root": str(self.image_root)}
        return {**origin, **self._columns.identity(), **counts, "sha256": self._sha256}


class _Gathered:
    """Rows merged by image, and their problems."""

    def __init__(self, root: Path, with_captions: bool) -> None:
        self.root, self.with_captions = root, with_captions
        self.indices: dict[str, int] = {}
        """Index of each image by its path below `root`."""
        self.captions: list[list[str]] = []
        self._absolute_root = os.path.abspath(root)  # noqa: PTH100 (resolve() would follow links)
        self._broken: list[str] = []
        self._not_utf8: list[str] = []
        self._urls: list[str] = []
        self._pathless: list[str] = []
        self._outside: list[str] = []
        self._blank: list[str] = []
        self._num_rows = 0
        self._repaired: dict[str, str] = {}

    def add(self, row: Row) -> None:
        self._num_rows += 1
        if row.fault == NOT_UTF8:
            self._not_utf8.append(f"row {row.line}")
        elif row.fault:
            self._broken.append(f"row {row.line}: {row.fault}")
        elif not isinstance(row.image, str) or not row.image:
            self._pathless.append(f"row {row.line}")
        elif URL.match(row.image):
            self._urls.append(f"row {row.line}: {row.image}")
        elif (name := self._inside(row.image)) is None:
            self._outside.append(f"row {row.line}: {row.image}")
        else:
            index = self.indices.setdefault(name, len(self.captions))
            if index == len(self.captions):
                self.captions.append([])
            if self.with_captions:
                self._add_captions(row, index)

    def kept(self) -> dict[str, list[str]]:
        """Return the captions of each image by its path, without images that have none."""
        kept: dict[str, list[str]] = {}
        for name, captions in zip(self.indices, self.captions, strict=True):
            if captions or not self.with_captions:
                kept.setdefault(self._repaired.get(name, name), []).extend(captions)
        return kept

    def note(self, problems: Problems, limit: float) -> None:
        """Add the problems of the rows; see `SourceConfig.missing_caption_limit`."""
        add = problems.add_all
        add("rows that cannot be read", self._broken, "Correct or remove them.")
        remedy = "Save the table as UTF-8, or name its encoding with --data.encoding (cp1252, ...)."
        add(f"rows with {NOT_UTF8}", self._not_utf8, remedy)
        remedy = "Download the images, for example with img2dataset, and give their paths."
        add("image paths that are URLs", self._urls, remedy)
        add("rows without an image path", self._pathless, "The path must be text.")
        remedy = f"Paths must lie below {self.root}; name another folder with --data.image_root."
        add("image paths that lead elsewhere", self._outside, remedy)
        blank = Missing("rows with an empty caption, or none", self._blank, "Write or remove them.")
        total = self._num_rows
        skip_within_limit([blank], total=total, kind="rows", limit=limit, problems=problems)
        remedy = f"Put them below {self.root}, or name another folder with --data.image_root."
        absent = absent_files(self.root, self.indices)
        self._repaired = repaired_paths(self.root, absent)
        absent = [name for name in absent if name not in self._repaired]
        add("images listed but absent", absent, remedy)
        if not problems.texts and not self.indices:
            problems.add("It has no rows. Is it the right file?")

    def _inside(self, path: str) -> str | None:
        """Return a path below the root; None if it leads elsewhere."""
        return None if DRIVE.match(path) else path_inside(self._absolute_root, path)

    def _add_captions(self, row: Row, index: int) -> None:
        captions = row.caption if isinstance(row.caption, list) else [row.caption]
        good: list[str] = [caption for caption in captions if is_caption(caption)]
        if not captions or len(good) < len(captions):
            self._blank.append(f"row {row.line}")
        self.captions[index] += good


def _check_paths(path: Path, image_root: Path, problems: Problems) -> None:
    if path.suffix.lower() not in READERS:
        kinds = ", ".join(READERS)
        problems.add(f"Its name must end in one of {kinds}. Name the file with --data.root.")
    elif path.is_dir():
        problems.add("It is a folder. Name one table with --data.root.")
    elif not path.is_file():
        problems.add("There is no such file. Name the table itself with --data.root.")
    if not image_root.is_dir():
        problems.add(f"{image_root} is not a folder. Name it with --data.image_root.")
    problems.check()
