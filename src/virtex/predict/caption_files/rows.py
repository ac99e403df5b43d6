"""Rows of a file of captions: written as JSON lines, JSON or CSV, and read again.

A row is one caption. Several captions of an image have ranks from 0 and follow each other.

Spreadsheets run a CSV cell that begins with = + - @ tab or CR as a formula. A quote mark before it
makes it text, as OWASP advises (https://owasp.org/www-community/attacks/CSV_Injection).
"""

import csv
import io
import itertools
import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from virtex.errors import ConfigError, DataError, is_number
from virtex.predict.results import Caption

Row = dict[str, Any]
TYPES = {
    "image": str, "rank": int, "caption": str, "log_likelihood": float,
    "backward_log_likelihood": float,
}  # fmt: skip
"""Names of all columns, in order, and the types of their values."""
UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError, csv.Error,
)  # fmt: skip
"""Errors that reading a damaged file of captions raises."""
RESTART = "choose another file, or start again with --overwrite (in Python overwrite=True)"
FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""Start of a text that gets a quote mark; also after quote marks, so that it can be undone."""


def columns_of(num_captions: int, *, is_reranked: bool) -> list[str]:
    """Return the names of a row's values, in order.

    Args:
        is_reranked: Whether the backward decoder takes part in the ranking.
    """
    absent = {"rank": num_captions == 1, "backward_log_likelihood": not is_reranked}
    return [name for name in TYPES if not absent.get(name)]


def rows_of(image: str, captions: Sequence[Caption], columns: Sequence[str]) -> Iterator[Row]:
    """Yield the captions of an image, the best first, as rows."""
    for rank, one in enumerate(captions):
        values = (image, rank, one.text, one.log_likelihood, one.backward_log_likelihood)
        row = dict(zip(TYPES, values, strict=True))
        yield {column: row[column] for column in columns}


def encode_lines(rows: Iterable[Row]) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[Row, int]]:
    """Yield each whole row of JSON lines and the offset of its end; leave out a cut last line.

    Raises:
        DataError: Another line is no row.
    """
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not _is_row(row, columns):
                raise DataError(
                    f"{path} is damaged: what follows byte {end} is no row of "
                    f"{', '.join(columns)}. Mend it, {RESTART}."
                )
            end += len(line)
            yield row, end


def _is_row(row: object, columns: Sequence[str]) -> bool:
    """Return whether a value is an object with these columns in order, each of its type."""
    if not isinstance(row, dict) or list(row) != list(columns):
        return False
    return all(_is_value(value, TYPES[name]) for name, value in row.items())


def _is_value(value: object, kind: type) -> bool:
    if kind is float:  # JSON has neither NaN nor infinity
        return is_number(value) and abs(value) < math.inf
    return isinstance(value, kind) and not isinstance(value, bool)


def write_json(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write a list with an entry for each image, which holds a list of several captions."""
    rest = [column for column in columns if column not in ("image", "rank")]
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for index, (image, group) in enumerate(itertools.groupby(rows, lambda row: row["image"])):
            captions = [{column: row[column] for column in rest} for row in group]
            values = {"captions": captions} if "rank" in columns else captions[0]
            entry = json.dumps({"image": image, **values}, indent=1)
            file.write(("," if index else "") + "\n" + textwrap.indent(entry, " "))
        file.write("\n]\n")


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write a header and a line for each caption; text is quoted, since it may hold commas."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            values = (row[column] for column in columns)
            writer.writerow(
                f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value
                for value in values
            )


def read_converted(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a file that `write_json` or `write_csv` wrote.

    Raises:
        ConfigError: The file was written by something else, was cut, or has values of other types.
    """
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    try:
        found = _json_rows(text) if text.startswith("[") else _csv_rows(text)
        rows = [{name: row[name] for name in columns} for row in found]
        assert text.endswith("\n")
        assert all(_is_row(row, columns) for row in rows)
        return rows
    except UNREADABLE as error:
        raise ConfigError(
            f"{path} is no whole file of {', '.join(columns)}; it may have been cut or changed: "
            f"{RESTART}."
        ) from error


def _json_rows(text: str) -> Iterator[Row]:
    for entry in json.loads(text):
        for rank, caption in enumerate(entry.get("captions", [entry])):
            yield {"image": entry["image"], "rank": rank, **caption}


def _csv_rows(text: str) -> Iterator[Row]:
    for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
        yield {
            name: TYPES[name](cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell)
            for name, cell in row.items()
        }
