"""Checks of a data set before any work starts, which report all problems at once."""

import gc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from virtex.data.example import Source
from virtex.errors import DataError, listing, one_line, raise_all
from virtex.files import read_regular

MAX_LISTS = 20
"""Most lists of a JSON document whose keys are compared; COCO's have 4."""
MAX_SHOWN = 100
"""Most characters of a piece of the user's data in an error message."""


class Problems:
    """The problems of one data set, which `subject` names as the user knows it."""

    def __init__(self, subject: str) -> None:
        self.subject = one_line(subject)
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Add one problem; `text` ends with what to do."""
        self.texts.append(one_line(text))

    def add_all(self, what: str, items: Sequence[object], remedy: str) -> None:
        """Add one problem that all `items` have; do nothing where there are none."""
        if items:
            shown = listing([quoted(item) for item in items])
            self.add(f"{what}: {len(items):,} ({shown}). {remedy}")

    def check(self) -> None:
        """Raise a DataError that lists all problems, if there are any."""
        raise_all(DataError, f"{self.subject} cannot be used", self.texts)

    def fail(self, text: str) -> NoReturn:
        """Raise a DataError with all problems, of which `text` is the last."""
        self.add(text)
        self.check()
        raise AssertionError("there is a problem")


def check_same_classes(train: Source, test: Source) -> None:
    """Check that a label means the same class in training and test.

    Raises:
        DataError: The classes differ, or there are none.
    """
    if not train.categories:
        raise DataError("the training images have no classes; choose a source that has labels.")
    if train.categories != test.categories:
        differ = sorted(set(train.categories) ^ set(test.categories))
        raise DataError(
            f"training and test images have different classes: {listing(differ) or 'other order'}. "
            "Both need the same class names."
        )


def only_in_one(first: tuple[Path, set[str]], second: tuple[Path, set[str]]) -> list[str]:
    """Return a problem for each of two paths whose names are missing from the other."""
    return [
        f"only in {path}: {len(own):,} ({listing(quoted(name) for name in sorted(own))})"
        for path, own in ((first[0], first[1] - second[1]), (second[0], second[1] - first[1]))
        if own
    ]


def quoted(item: object, *, limit: int = MAX_SHOWN) -> str:
    """Return a piece of the user's data for a terminal: short, without control characters."""
    text = str(item)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f"{text[:limit]}..."


def read_bytes(path: Path, problems: Problems) -> bytes | None:
    """Return a file's content; None, and a problem added, where it cannot be read."""
    try:
        return bytes(read_regular(path))
    except OSError as error:
        problems.add(f"{path} cannot be read ({error.strerror}).")
        return None


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, which end at a line feed, a carriage return or both.

    `str.splitlines` also cuts at form feeds, U+0085 and U+2028, which captions hold.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def head_of(path: Path, size: int) -> bytes:
    """Return the first bytes of a regular file; none of anything else, or if it cannot be read."""
    if not path.is_file():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def read_json(path: Path, problems: Problems) -> tuple[Any, str]:
    """Return a JSON document and its file's sha256; None, and a problem added, if it is broken."""
    data = read_bytes(path, problems)
    if data is None:
        return None, ""
    try:
        document = json.loads(data)
        if any(data.count(key) > 1 for key in _list_keys(document)):
            json.loads(data, object_pairs_hook=_check_keys)
        return document, hashlib.sha256(data).hexdigest()
    except (ValueError, RecursionError) as error:
        problems.add(f"{path} is not valid JSON ({quoted(error)}). Download or write it again.")
        return None, ""


def _list_keys(document: Any) -> list[bytes]:
    """Return the keys of a document's lists as they are written; not many, since each is sought."""
    rows = document.items() if isinstance(document, dict) else ()
    names = [key for key, value in rows if isinstance(value, list)][:MAX_LISTS]
    return [json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass") for key in names]


def _check_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, or raise a ValueError if two of its lists have the same key."""
    document = dict(pairs)
    if len(document) < len(pairs):
        for key, value in pairs:
            if isinstance(value, list) and document[key] is not value:
                raise ValueError(f"the key {quoted(key)} comes twice: one list would be lost")
    return document


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the garbage collector, so that it does not visit millions of JSON objects.

    COCO's instances then open in a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def sha256_of_strings(strings: Iterable[str]) -> str:
    """Return a sha256 of strings, for data without an annotation file."""
    digest = hashlib.sha256()
    for string in strings:
        digest.update(string.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def sha256_of_captions(image_ids: Iterable[str], captions: Iterable[Sequence[str]]) -> str:
    """Return a sha256 of image ids and the captions of each, none of which is empty."""
    return sha256_of_strings(
        text
        for image_id, texts in zip(image_ids, captions, strict=True)
        for text in (image_id, *texts, "")
    )


def is_caption(value: object) -> TypeGuard[str]:
    """Return whether a value is text that is not blank and can be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def path_inside(root: str, name: str) -> str | None:
    """Return an untrusted path relative to `root`; None if it leads outside or is invalid.

    Args:
        root: A normalized absolute path.
        name: A path relative to `root`, or an absolute one.
    """
    if not name or "\0" in name:
        return None
    folder = os.path.join(root, "")  # noqa: PTH118 (pathlib keeps "..", and is slow)
    path = os.path.normpath(os.path.join(root, name))  # noqa: PTH118
    return path[len(folder) :] if path.startswith(folder) and path != folder else None


def absent_files(root: Path, names: Iterable[str]) -> list[str]:
    """Return the relative paths that are not files under `root`.

    Each folder is listed once, since one query for each image takes minutes on a network drive.
    """
    listed: dict[str, frozenset[str]] = {}
    absent = []
    for name in names:
        folder, _, leaf = name.rpartition("/")
        if folder not in listed:
            listed[folder] = _file_names(root / folder)
        if leaf not in listed[folder]:
            absent.append(name)
    return absent


def repaired_paths(root: Path, absent: Iterable[str]) -> dict[str, str]:
    """Return the files meant by absent paths that hold back-slashes, outer spaces or root's name.

    Only those that exist; a path is relative to `root`, and so is its file.
    """
    absolute = os.path.abspath(root)  # noqa: PTH100 (resolve() would follow links)
    candidates = {}
    for name in absent:
        plain = name.replace("\\", "/").strip().removeprefix(f"{root.name}/")
        inner = path_inside(absolute, plain)
        if inner is not None and inner != name:
            candidates[name] = inner
    still_absent = set(absent_files(root, candidates.values()))
    return {name: plain for name, plain in candidates.items() if plain not in still_absent}


def _file_names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except (OSError, ValueError):  # ValueError: an invalid name
        return frozenset()
