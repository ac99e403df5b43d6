"""Tables in Parquet, in bounded memory: a few kilobytes of it can decode into gigabytes."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from virtex.data.checks import quoted
from virtex.data.sources.table_rows import Columns, Row, row_of
from virtex.errors import ConfigError

NUM_ROWS = 10_000
"""Rows held as Python objects at a time."""
NUM_NESTED_ROWS = 100
"""The same with lists, whose repeated texts pyarrow copies."""
MAX_ROW_GROUP_BYTES = 2**30
MAX_ROW_GROUP_VALUES = 2**25
MAX_RATIO = 1000
"""Largest compression of a column in a row group beyond FREE_BYTES."""
FREE_BYTES = 2**20
MAX_EXPANSION = 1000
"""Most characters that a byte of the file may decode into; text is compressed by 3 to 100."""
FREE_CHARACTERS = 2**26
"""Characters that any file may decode into."""
ROW_COST = 16
"""Characters that a value counts at least."""

PROBE = """
import sys
from pyarrow import parquet
metadata = parquet.read_metadata(sys.argv[1])
for number in range(metadata.num_row_groups):
    group = metadata.row_group(number)
    for index in range(group.num_columns):
        group.column(index).statistics
"""
"""Program that reads all metadata of a file."""


def read_parquet(path: Path, columns: Columns, encoding: str | None = None) -> Iterator[Row]:
    """Yield the rows of a Parquet file; raise a ValueError if it cannot be read as a whole.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    del encoding  # it is always UTF-8
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigError(
            f"{path} is a Parquet file, which needs pyarrow: pip install pyarrow"
        ) from error
    _check_metadata(path)
    try:
        yield from _rows(path, columns)
    except (pyarrow.ArrowException, MemoryError) as error:
        raise ValueError(str(error) or "not enough memory") from error


def _check_metadata(path: Path) -> None:
    """Raise a ValueError if pyarrow aborts on the metadata, which would end this process.

    It does where statistics do not fit a column's type. Another process, of some 0.3 s, tries it.
    """
    command = [sys.executable, "-c", PROBE, str(path.absolute())]
    if subprocess.run(command, capture_output=True, check=False).returncode < 0:
        raise ValueError("its metadata are damaged")


def _rows(path: Path, columns: Columns) -> Iterator[Row]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = columns.choose(file.schema_arrow.names)
        selected = [_column(file, names[0]), *names[1:]]
        _check_types(file.schema_arrow, selected)
        budget = max(FREE_CHARACTERS, MAX_EXPANSION * path.stat().st_size)
        leaves = _leaves(file, selected)
        _check_sizes(file.metadata, {leaf.path for leaf in leaves}, budget)
        texts = [
            leaf.path
            for leaf in leaves
            if leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level == 0
        ]
    line = 0
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        num_rows = NUM_ROWS if len(texts) == len(selected) else NUM_NESTED_ROWS
        for batch in file.iter_batches(batch_size=num_rows, columns=selected):
            for values in zip(*(_values(batch.column(name)) for name in names), strict=True):
                line += 1
                budget -= ROW_COST + sum(map(_num_characters, values))
                if budget < 0:
                    raise ValueError(f"its first {line:,} rows are far too large for its size")
                yield row_of(line, values)


def _column(file: Any, name: str) -> str:
    """Return the image column, or the path in it; raise a ValueError if it has images alone."""
    from pyarrow import types

    kind = file.schema_arrow.field(name).type
    if types.is_struct(kind) and kind.get_field_index("path") >= 0 and not _has_bytes(file, name):
        return f"{name}.path"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_struct(kind):
        raise ValueError(
            f"its column {name} holds images, not their paths: write the images to files, or to "
            "tar shards for --data.source webdataset"
        )
    return name


def _check_types(schema: Any, selected: Sequence[str]) -> None:
    """Raise a ValueError if a column other than that of a path in records holds records."""
    from pyarrow import types

    for name in selected:
        if schema.get_field_index(name) < 0:
            continue
        whole = kind = schema.field(name).type
        while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            kind = kind.value_type
        if types.is_nested(kind):
            raise ValueError(
                f"its column {name} is of the type {quoted(whole)}, and must hold text or lists of "
                "text: name another with --data.image_column or --data.caption_column, or write "
                "the text of the records to a column of its own"
            )


def _has_bytes(file: Any, name: str) -> bool:
    """Whether an image column, as Hugging Face writes it, holds images beside their paths."""
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            statistics = column.statistics if column.path_in_schema == f"{name}.bytes" else None
            if statistics is not None and statistics.has_null_count:
                return bool(statistics.null_count < group.num_rows)
    return False


def _leaves(file: Any, selected: Sequence[str]) -> list[Any]:
    """Return the stored columns that make up the selected ones."""
    found = (file.schema.column(index) for index in range(len(file.schema)))
    return [
        one
        for one in found
        if any(one.path == name or one.path.startswith(f"{name}.") for name in selected)
    ]


def _check_sizes(metadata: Any, paths: set[str], budget: int) -> None:
    """Raise a ValueError unless the columns of each row group decode in bounded memory.

    Args:
        budget: Most characters of the whole file.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        sizes = [
            (one.total_uncompressed_size, one.total_compressed_size, one.num_values)
            for one in columns
            if one.path_in_schema in paths
        ]
        num_bytes = sum(size for size, _, _ in sizes)
        num_values = max([group.num_rows, *(values for _, _, values in sizes)])
        budget -= ROW_COST * num_values
        is_bomb = any(size > FREE_BYTES + MAX_RATIO * packed for size, packed, _ in sizes)
        is_huge = num_bytes > MAX_ROW_GROUP_BYTES or num_values > MAX_ROW_GROUP_VALUES
        if is_bomb or is_huge or budget < 0:
            raise ValueError(
                f"its row group {number} decodes into {num_values:,} values and {num_bytes:,} "
                "bytes, too many for its size; write it with smaller row groups"
            )


def _values(column: Any) -> list[Any]:
    """Return the values of a column; a text that recurs is one object."""
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        texts: dict[int | None, Any] = {None: None}
        indices = column.indices.to_pylist()
        for index in indices:
            if index not in texts:
                texts[index] = column.dictionary[index].as_py()
        return [texts[index] for index in indices]
    if types.is_list(kind) or types.is_large_list(kind):
        starts = column.offsets.to_pylist()
        inner = _values(column.values.slice(starts[0], starts[-1] - starts[0]))
        bounds = pairwise(start - starts[0] for start in starts)
        are_valid = column.is_valid().to_pylist()
        return [
            inner[start:end] if is_valid else None
            for (start, end), is_valid in zip(bounds, are_valid, strict=True)
        ]
    if types.is_struct(kind):
        return [{"path": path} for path in _values(column.field("path"))]
    values: list[Any] = column.to_pylist()
    return values


def _num_characters(value: object) -> int:
    if isinstance(value, dict):
        return _num_characters(value.get("path"))
    if isinstance(value, list):
        return sum(ROW_COST + _num_characters(one) for one in value)
    return len(value) if isinstance(value, str) else 0
