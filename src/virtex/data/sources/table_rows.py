"""The rows of a CSV, TSV, JSON lines or Parquet file."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from virtex.data.checks import Problems, quoted
from virtex.errors import ConfigError, listing

IMAGE_COLUMNS = ("image", "filepath", "path", "file_name")
CAPTION_COLUMNS = ("caption", "captions", "text", "title")
MAX_SHOWN_COLUMNS = 8
MAX_ERROR = 500
"""Most characters of an error in a message."""
NUM_PARQUET_ROWS = 10_000
"""Rows held as Python objects at a time."""


class Row(NamedTuple):
    """An image path and its captions as in the table, of any type."""

    line: int
    image: object = None
    caption: object = None
    fault: str = ""
    """Reason why the row cannot be read."""


@dataclass(frozen=True)
class Columns:
    """Names of the two columns; None for the first usual name in the table."""

    image: str | None
    caption: str | None
    with_captions: bool

    def choose(self, header: Sequence[str]) -> list[str]:
        """Return the image column and, with captions, the caption column, or raise a ValueError."""
        chosen = [_choose("image", self.image, IMAGE_COLUMNS, header)]
        if self.with_captions:
            chosen.append(_choose("caption", self.caption, CAPTION_COLUMNS, header))
        return chosen

    def identity(self) -> dict[str, str]:
        """Return the named columns, since other columns of a file hold other data."""
        named = {"image_column": self.image}
        if self.with_captions:
            named["caption_column"] = self.caption
        return {option: name for option, name in named.items() if name is not None}


def read_rows(path: Path, columns: Columns, problems: Problems) -> Iterator[Row]:
    """Yield all rows; add a problem and stop if the file as a whole cannot be read."""
    try:
        yield from READERS[path.suffix.lower()](path, columns)
    except (OSError, ValueError, csv.Error) as error:
        problems.add(f"It cannot be read: {quoted(error, limit=MAX_ERROR)}.")


def _choose(kind: str, named: str | None, usual: Sequence[str], header: Sequence[str]) -> str:
    names = usual if named is None else (named,)
    found = [name for name in names if name in header]
    if not found:
        there = listing([quoted(name, limit=20) for name in header], limit=MAX_SHOWN_COLUMNS)
        raise ValueError(
            f"no column {' or '.join(names)} among {there or 'none'}: name one with "
            f"--data.{kind}_column"
        )
    return found[0]


def _row(line: int, values: Sequence[object]) -> Row:
    """Return the row of a value from the image column and perhaps one from the caption column."""
    return Row(line, image=values[0], caption=values[1] if len(values) > 1 else None)


def _read_csv(path: Path, columns: Columns, delimiter: str = ",") -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, [])
        chosen = [header.index(name) for name in columns.choose(header)]
        for values in reader:
            if len(values) == len(header):
                yield _row(reader.line_num, [values[column] for column in chosen])
            elif values:
                fault = f"{len(values)} fields, not {len(header)}"
                yield Row(reader.line_num, fault=fault)


def _read_tsv(path: Path, columns: Columns) -> Iterator[Row]:
    return _read_csv(path, columns, delimiter="\t")


def _read_jsonl(path: Path, columns: Columns) -> Iterator[Row]:
    names: list[str] | None = None
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                values: Any = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield Row(line, fault=str(error))
                continue
            if not isinstance(values, dict):
                yield Row(line, fault="not an object")
                continue
            names = names or columns.choose(list(values))
            yield _row(line, [values.get(name) for name in names])


def _read_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f'{path} is a Parquet file, which needs pyarrow: pip install "virtex[parquet]"'
        ) from error
    line = 0
    with parquet.ParquetFile(path) as file:
        names = columns.choose(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=NUM_PARQUET_ROWS, columns=names):
            for values in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                line += 1
                yield _row(line, values)


READERS: dict[str, Callable[[Path, Columns], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
