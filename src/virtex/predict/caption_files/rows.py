"""Captions as rows of JSON lines or CSV: written, read again, and mended where a kill cut them.

A row is one caption. Of several captions of an image each has its rank, from 0; they follow each
other.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from virtex.errors import DataError
from virtex.predict.predictor import Caption

Row = dict[str, str | int | float]
RowFormat = Literal["jsonl", "csv"]


class RowLayout(NamedTuple):
    """What a row holds."""

    is_ranked: bool
    """Whether an image has several captions."""
    is_reranked: bool
    """Whether captions were ranked by the backward decoder too."""

    @property
    def columns(self) -> list[str]:
        """Names of the values, in order."""
        rank = ["rank"] if self.is_ranked else []
        backward = ["backward_log_likelihood"] if self.is_reranked else []
        return ["image", *rank, "caption", "log_likelihood", *backward]

    def rows(self, image: str, captions: Sequence[Caption]) -> list[Row]:
        """The captions of an image, the best first."""
        return [
            {
                "image": image,
                **({"rank": rank} if self.is_ranked else {}),
                "caption": caption.text,
                "log_likelihood": caption.log_likelihood,
                **self._backward(caption),
            }
            for rank, caption in enumerate(captions)
        ]

    def _backward(self, caption: Caption) -> Row:
        if not self.is_reranked:
            return {}
        assert caption.backward_log_likelihood is not None
        return {"backward_log_likelihood": caption.backward_log_likelihood}


class RowEnd(NamedTuple):
    """A row that was read, and where in the file it ends."""

    row: dict[str, Any]
    end: int


def encode_rows(rows: Sequence[Row], row_format: RowFormat) -> bytes:
    """Rows as they stand in a file."""
    if row_format == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return _encode_csv([list(row.values()) for row in rows])


def encode_header(layout: RowLayout, row_format: RowFormat) -> bytes:
    """What a file begins with."""
    return b"" if row_format == "jsonl" else _encode_csv([layout.columns])


def read_rows(path: Path, layout: RowLayout, row_format: RowFormat) -> Iterator[RowEnd]:
    """The whole rows of a file; one that was cut at its end is left out.

    Raises:
        DataError: Something else in the file is no row.
    """
    read = _read_json_lines if row_format == "jsonl" else _read_csv
    end = 0
    with path.open("rb") as file:
        for row_end in read(file, layout.columns):
            yield row_end
            end = row_end.end
        file.seek(end)
        tail = file.read()
    header = encode_header(layout, row_format) if end == 0 else b""
    if not _is_cut(tail.removeprefix(header), row_format):
        raise DataError(
            f"{path} is damaged: what follows byte {end} is no row of {', '.join(layout.columns)}. "
            "Mend it, choose another file, or start anew with --overwrite (in Python "
            "overwrite=True)."
        )


def _is_cut(tail: bytes, row_format: RowFormat) -> bool:
    """Whether it is less than one row: what a kill leaves at the end of a file."""
    if row_format == "jsonl":
        return b"\n" not in tail
    lines = _Lines(io.BytesIO(tail))
    try:
        row = next(csv.reader(lines, strict=True), None)
    except csv.Error:
        return lines.is_over  # else something is wrong before the end
    return row is None or not lines.is_whole


def _read_json_lines(file: IO[bytes], columns: list[str]) -> Iterator[RowEnd]:
    end = 0
    for line in file:
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            return
        if not isinstance(row, dict) or list(row) != columns:
            return
        end += len(line)
        yield RowEnd(row, end)


def _read_csv(file: IO[bytes], columns: list[str]) -> Iterator[RowEnd]:
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    try:
        if next(reader, None) != columns:
            return
        for values in reader:
            if len(values) != len(columns) or not lines.is_whole:
                return
            yield RowEnd(dict(zip(columns, values, strict=True)), lines.end)
    except csv.Error:
        return


class _Lines:
    """Lines of a file for the CSV reader, which takes several where a path has line breaks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.end = 0
        """Of what was taken so far."""
        self.is_whole = True
        """Whether the last line taken ends as lines do."""
        self.is_over = False
        """Whether more lines were asked for than there are, as within quotes that never close."""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.end += len(line)
            self.is_whole = line.endswith(b"\n")
            yield line.decode("utf-8", "surrogateescape")
        self.is_over = True


def _encode_csv(rows: Sequence[Sequence[str | int | float]]) -> bytes:
    """Text is quoted throughout: a path may hold commas and line breaks."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
