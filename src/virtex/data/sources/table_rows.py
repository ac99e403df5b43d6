"""The rows of a table, whatever its format, and the choice of its two columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from virtex.data.checks import quoted
from virtex.errors import listing

IMAGE_COLUMNS = (
    *("image", "filepath", "path", "file_name"),
    *("filename", "image_path", "image_name", "img_path", "file"),
)
CAPTION_COLUMNS = (
    *("caption", "captions", "text", "title"),
    *("comment", "description", "sentence", "alt_text"),
)
MAX_SHOWN_COLUMNS = 8
NOT_UTF8 = "bytes that are not UTF-8"
"""Fault of a row in another encoding."""


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


def row_of(line: int, values: Sequence[object]) -> Row:
    """Return the row of a value from the image column and perhaps one from the caption column.

    An image as Hugging Face writes it, {"bytes": ..., "path": ...}, stands for its path.
    """
    image = values[0].get("path") if isinstance(values[0], dict) else values[0]
    return Row(line, image=image, caption=values[1] if len(values) > 1 else None)


def _choose(kind: str, named: str | None, usual: Sequence[str], header: Sequence[str]) -> str:
    names = usual if named is None else (named,)
    found = [name for name in names if name in header]
    if not found and named is None:  # Image, Caption
        found = [name for usual_name in usual for name in header if name.lower() == usual_name]
    if not found:
        there = listing([quoted(name, limit=20) for name in header], limit=MAX_SHOWN_COLUMNS)
        raise ValueError(
            f"no column {' or '.join(names)} among {there or 'none'}: name one with "
            f"--data.{kind}_column"
        )
    if (count := header.count(found[0])) > 1:
        raise ValueError(f"{count} columns are named {quoted(found[0])}: rename the others")
    return found[0]
