"""Tables as text: CSV, TSV and JSON lines, with the separator, quotes and encoding they have."""

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from virtex.data.sources.table_rows import NOT_UTF8, Columns, Row, row_of

SEPARATORS = ",;\t|"
MAX_LINE = 2**25
"""Most characters of a line, so that a file without line breaks does not fill the memory."""
MAX_FIELD = 10_000_000
"""Most characters of a field."""
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the byte order mark that begins a file; UTF-32's begins like UTF-16's."""
ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
"""Characters that stand for bytes that cannot be decoded."""


class Layout(NamedTuple):
    """The form of a delimited text."""

    separator: str
    width: int
    """Number of fields of a row."""
    chosen: list[int]
    """Indices of the image column and perhaps the caption column."""
    skips_space: bool
    """Whether separators are followed by a space."""
    has_quotes: bool = True
    """Whether quotes delimit fields; otherwise they are text."""

    def reader(self, file: TextIO) -> Any:
        """Return a csv.reader of the file."""
        csv.field_size_limit(MAX_FIELD)
        return csv.reader(
            _lines(file),
            delimiter=self.separator,
            strict=True,
            skipinitialspace=self.skips_space,
            quoting=csv.QUOTE_MINIMAL if self.has_quotes else csv.QUOTE_NONE,
        )


def read_delimited(path: Path, columns: Columns, encoding: str | None) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV file; raise a ValueError if it cannot be read as a whole."""
    layout = _find_layout(path, columns, encoding)
    with _open(path, encoding) as file:
        reader = layout.reader(file)
        try:
            next(reader, None)
            for values in reader:
                if len(values) == layout.width:
                    yield _text_row(reader.line_num, [values[column] for column in layout.chosen])
                elif values:
                    fault = f"{len(values)} fields, not {layout.width}"
                    yield Row(reader.line_num, fault=fault)
        except csv.Error as error:
            raise ValueError(
                f"row {reader.line_num}: {error}; close each quote, and double those in quoted text"
            ) from error


def read_json_lines(path: Path, columns: Columns, encoding: str | None) -> Iterator[Row]:
    """Yield the rows of a file with a JSON object on each line."""
    names: list[str] | None = None
    with _open(path, encoding) as file:
        for line, text in enumerate(_lines(file), start=1):
            if not text.strip():
                continue
            if not text.isascii() and ESCAPED_BYTES.search(text):
                yield Row(line, fault=NOT_UTF8)
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
            yield row_of(line, [values.get(name) for name in names])


def read_json_list(path: Path, columns: Columns, encoding: str | None) -> Iterator[Row]:
    """Yield the rows of a file that is a JSON list of objects."""
    with _open(path, encoding) as file:
        try:
            document = json.load(file)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
    if not isinstance(document, list):
        raise ValueError("it is not a JSON list of objects, one for each row")
    names: list[str] | None = None
    for line, values in enumerate(document, start=1):
        if not isinstance(values, dict):
            yield Row(line, fault="not an object")
            continue
        names = names or columns.choose(list(values))
        yield row_of(line, [values.get(name) for name in names])


def _find_layout(path: Path, columns: Columns, encoding: str | None) -> Layout:
    """Return the form of a delimited text, whose first row names the columns.

    The separator is that of the suffix or, if the columns are not found with it, the only other
    that finds them.
    """
    with _open(path, encoding) as file:
        first = next(_lines(file), "")
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    layouts: list[Layout] = []
    errors: dict[int, ValueError] = {}
    for separator in usual + SEPARATORS.replace(usual, ""):
        try:
            layouts.append(_layout_of(first, separator, columns))
        except ValueError as error:
            errors[first.count(separator)] = error
        if layouts and layouts[0].separator == usual:
            break
    if len(layouts) != 1:
        raise ValueError(f"{errors[max(errors)]} (the first row must name the columns)")
    return _with_quotes(path, layouts[0], encoding)


def _layout_of(first: str, separator: str, columns: Columns) -> Layout:
    """Return the form of a first row by a separator; a ValueError says which column is missing."""
    spaced = re.search(f"{re.escape(separator)} ", first) is not None
    rows = csv.reader([first], delimiter=separator, skipinitialspace=spaced)
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    chosen = [header.index(name) for name in columns.choose(header)]
    return Layout(separator, len(header), chosen, spaced)


def _with_quotes(path: Path, layout: Layout, encoding: str | None) -> Layout:
    """Return the layout in which quotes are text if they do not delimit fields in this file.

    That is so where taking them for delimiters fails or, in a TSV file, joins lines, and each line
    by itself has all fields (Conceptual Captions; a quote that never ends would swallow rows).
    """
    if _is_plainly_quoted(path, layout, encoding):
        return layout
    literal = layout._replace(has_quotes=False)
    with _open(path, encoding) as file:
        for values in literal.reader(file):
            is_whole = len(values) == layout.width
            if values and (not is_whole or values[layout.chosen[0]].startswith('"')):
                return layout
    return literal


def _is_plainly_quoted(path: Path, layout: Layout, encoding: str | None) -> bool:
    """Whether a file can be read with quotes as delimiters; in TSV, with each row on one line."""
    with _open(path, encoding) as file:
        if not any('"' in line for line in _lines(file)):
            return True
        file.seek(0)
        reader = layout.reader(file)
        try:
            num_rows = sum(1 for _ in reader)
            return layout.separator != "\t" or num_rows == reader.line_num
        except csv.Error:
            return False


def _text_row(line: int, values: Sequence[str]) -> Row:
    if any(not value.isascii() and ESCAPED_BYTES.search(value) for value in values):
        return Row(line, fault=NOT_UTF8)
    return row_of(line, values)


def _open(path: Path, encoding: str | None) -> TextIO:
    """Open a file as UTF-8 unless its byte order mark or `encoding` names another encoding."""
    with path.open("rb") as file:
        start = file.read(4)
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
    return path.open(newline="", encoding=encoding or marked, errors="surrogateescape")


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file, or raise a ValueError if one is too long."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise ValueError(f"line {number} has more than {MAX_LINE:,} characters")
        yield line
