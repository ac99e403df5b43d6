"""The columns of a data set that hold images, captions and labels: found by type and usual name."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from virtex.data.checks import Problems, quoted
from virtex.data.sources.huggingface_sets import Kind
from virtex.data.sources.table_rows import CAPTION_COLUMNS, IMAGE_COLUMNS
from virtex.errors import ConfigError, listing

TEXT_COLUMNS = (*CAPTION_COLUMNS, "sentences", "raw")
LABEL_COLUMNS = ("label", "labels", "class", "target")
MAX_SHOWN = 20


class Use(NamedTuple):
    """What a column may be used for."""

    name: str
    usual: tuple[str, ...]
    """Names that decide between several columns of a fitting type."""
    types: str
    """The fitting types, in words."""


IMAGE = Use("image", IMAGE_COLUMNS, "images, or bytes of image files")
CAPTION = Use("caption", TEXT_COLUMNS, "strings, lists of strings, or records that hold such")
LABEL = Use("label", LABEL_COLUMNS, "classes, or integers, or lists of these")


class Chosen(NamedTuple):
    """A column, and the field in it, empty for the whole column."""

    column: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.column}.{self.field}" if self.field else self.column


def choose_image(named: str | None, kinds: Mapping[str, Kind], problems: Problems) -> Chosen | None:
    """Return the column of images: the only one of images, or else of bytes, or of a usual name.

    Raises:
        ConfigError: There are several, or the named one does not fit.
    """
    fits = [name for name, kind in kinds.items() if kind.name == "image"]
    encoded = [name for name, kind in kinds.items() if _is_encoded(kind)]
    if named is not None:
        return Chosen(_checked(IMAGE, named, [*fits, *encoded], kinds))
    found = _only(IMAGE, fits or encoded, kinds, problems)
    return None if found is None else Chosen(found)


def choose_caption(
    named: str | None, kinds: Mapping[str, Kind], problems: Problems
) -> Chosen | None:
    """Return the column of captions, the first of the usual names, and the field in it.

    Raises:
        ConfigError: The named column does not fit.
    """
    fields = {name: text_field(kind) for name, kind in kinds.items()}
    fits = [name for name, found in fields.items() if found is not None]
    if named is not None:
        if named not in kinds and "." in named:
            column, _, inner = named.partition(".")
            with_texts = [name for name, kind in kinds.items() if inner in _texts(kind)]
            return Chosen(_checked(CAPTION, column, with_texts, kinds), inner)
        return Chosen(_checked(CAPTION, named, fits, kinds), fields[named] or "")
    found = _first_usual(CAPTION, fits)
    if found is None:
        problems.add(_message(CAPTION, f"No column of text is named {_usual(CAPTION)}", kinds))
        return None
    return Chosen(found, fields[found] or "")


def choose_label(named: str | None, kinds: Mapping[str, Kind], problems: Problems) -> Chosen | None:
    """Return the column of labels: the only one of classes, or of a usual name.

    Raises:
        ConfigError: There are several, or the named one does not fit.
    """
    classes = [name for name, kind in kinds.items() if item_of(kind).name == "class"]
    integers = [name for name, kind in kinds.items() if item_of(kind).name == "integer"]
    if named is not None:
        return Chosen(_checked(LABEL, named, [*classes, *integers], kinds))
    usual = _first_usual(LABEL, integers)
    fits = classes or ([usual] if usual else [])
    found = _only(LABEL, fits, kinds, problems)
    return None if found is None else Chosen(found)


def item_of(kind: Kind) -> Kind:
    """Return the type of a list's items; of others the type itself."""
    return kind if kind.item is None else kind.item


def text_field(kind: Kind) -> str | None:
    """Return the field of a column's records that holds text, empty for text itself; None if none.

    A record may also lie in a list, or hold lists.
    """
    if item_of(kind).name == "string":
        return ""
    texts = _texts(kind)
    return next((name for name in ("raw", *TEXT_COLUMNS) if name in texts), None)


def texts_in(value: Any, field: str) -> Iterator[object]:
    """Yield the texts in a row: a string, a list, a record with `field`, or a list of such."""
    if isinstance(value, list):
        for item in value:
            yield from texts_in(item, field)
    elif isinstance(value, dict):
        yield from texts_in(value.get(field), field)
    else:
        yield value


def _texts(kind: Kind) -> list[str]:
    """Return the fields of a column's records that hold text."""
    fields = item_of(kind).fields
    return [name for name, one in fields.items() if item_of(one).name == "string"]


def _is_encoded(kind: Kind) -> bool:
    """Whether values are image files: bytes, or a record of them as `datasets` writes images."""
    of_record = kind.fields.get("bytes")
    return kind.name == "bytes" or (of_record is not None and of_record.name == "bytes")


def _checked(use: Use, named: str, fits: list[str], kinds: Mapping[str, Kind]) -> str:
    if named not in kinds:
        raise ConfigError(_message(use, f"There is no column {quoted(named)}", kinds))
    if named not in fits:
        fault = f"Column {quoted(named)} is of {kinds[named]}, and {use.name}s are {use.types}"
        raise ConfigError(_message(use, fault, kinds))
    return named


def _only(use: Use, fits: list[str], kinds: Mapping[str, Kind], problems: Problems) -> str | None:
    """Return the only fitting column, or that of a usual name; a problem is added if none fits."""
    if not fits:
        problems.add(_message(use, f"No column holds {use.name}s, which are {use.types}", kinds))
        return None
    found = fits[0] if len(fits) == 1 else _first_usual(use, fits)
    if found is None:
        several = listing([quoted(name) for name in fits], limit=MAX_SHOWN)
        raise ConfigError(_message(use, f"Several columns may hold {use.name}s: {several}", kinds))
    return found


def _first_usual(use: Use, fits: list[str]) -> str | None:
    """Return the first fitting column of a usual name, in any case of letters if need be."""
    lower = {name.lower(): name for name in reversed(fits)}
    return next((name for name in use.usual if name in fits), None) or next(
        (lower[name] for name in use.usual if name in lower), None
    )


def _usual(use: Use) -> str:
    return f"{', '.join(use.usual[:-1])} or {use.usual[-1]}"


def _message(use: Use, fault: str, kinds: Mapping[str, Kind]) -> str:
    """Return a sentence with the columns, their types and the flag that names one."""
    columns = [f"{quoted(name, limit=40)} ({kind})" for name, kind in kinds.items()]
    shown = listing(columns, limit=MAX_SHOWN) or "none"
    return f"{fault}. The columns are {shown}. Name one with --data.{use.name}_column."
