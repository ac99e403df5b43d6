"""Finding everything that is wrong with a data set before any work starts."""

import gc
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

from virtex.data.example import Source
from virtex.errors import DataError, listing, raise_all

log = logging.getLogger("virtex")

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif"}
)
MAX_SHOWN = 100
"""Longest piece of the user's data that an error message quotes."""


class Problems:
    """Everything wrong with one data set, said at once.

    Args:
        subject: What the data set is, as the user knows it.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Note one problem; `text` ends with what to do."""
        self.texts.append(text)

    def add_all(self, what: str, items: Sequence[object], remedy: str) -> None:
        """Note that all `items` have the same problem; nothing if there are none."""
        if items:
            shown = listing([quoted(item) for item in items])
            self.add(f"{what}: {len(items):,} ({shown}). {remedy}")

    def check(self) -> None:
        """Raise what was noted.

        Raises:
            DataError: All problems, one a line.
        """
        raise_all(DataError, f"{self.subject} cannot be used", self.texts)


def check_same_classes(train: Source, test: Source) -> None:
    """Refuse data in which a label means one thing in training and another in the test.

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


def quoted(item: object, *, limit: int = MAX_SHOWN) -> str:
    """A piece of the user's data, fit for a terminal: short, and without control characters."""
    text = str(item)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= limit else f"{text[:limit]}..."


def read_bytes(path: Path, problems: Problems) -> bytes | None:
    """The file's content; None, and a problem noted, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        problems.add(f"{path} cannot be read ({error.strerror}).")
        return None


def read_json(path: Path, problems: Problems) -> tuple[Any, str]:
    """A JSON document and the sha256 of its file; None, and a problem noted, where it is broken."""
    data = read_bytes(path, problems)
    if data is None:
        return None, ""
    try:
        return json.loads(data), hashlib.sha256(data).hexdigest()
    except (ValueError, RecursionError) as error:
        problems.add(f"{path} is not valid JSON ({quoted(error)}). Download or write it again.")
        return None, ""


@contextmanager
def paused_collection() -> Iterator[None]:
    """Keep the garbage collector from walking millions of JSON objects again and again.

    None of them is garbage while a file is read; COCO's instances open in a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def sha256_of_file(path: Path) -> str:
    """The file's sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_strings(strings: Iterable[str]) -> str:
    """A sha256 over strings, for data that no annotation file describes."""
    digest = hashlib.sha256()
    for string in strings:
        digest.update(string.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def sha256_of_captions(image_ids: Iterable[str], captions: Iterable[Sequence[str]]) -> str:
    """A sha256 over images and the captions of each, none of which is empty."""
    return sha256_of_strings(
        text
        for image_id, texts in zip(image_ids, captions, strict=True)
        for text in (image_id, *texts, "")
    )


def is_caption(value: object) -> TypeGuard[str]:
    """Whether a value is text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def path_inside(root: str, name: str) -> str | None:
    """`name` relative to `root`, normalised; None where it is no path or leads out of `root`.

    Args:
        root: An absolute path, normalised.
        name: A path relative to `root`, or an absolute one. Nothing about it is trusted.
    """
    if not name or "\0" in name:
        return None
    folder = os.path.join(root, "")  # noqa: PTH118 (pathlib keeps "..", and is slow)
    path = os.path.normpath(os.path.join(root, name))  # noqa: PTH118
    return path[len(folder) :] if path.startswith(folder) and path != folder else None


def absent_files(root: Path, names: Iterable[str]) -> list[str]:
    """Those relative paths that are no files under `root`.

    Each folder is listed once: asking the file system for each image takes minutes where the
    images lie on a network drive.
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


def walk(root: Path, *, is_strict: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder under `root`, as a prefix that is empty or ends in /, with its file names.

    Both are sorted. Hidden files and folders are left out; links are followed.

    Args:
        is_strict: Raise an error for a folder that cannot be read or is reached twice, instead of
            leaving it out.

    Raises:
        DataError: A folder that cannot be read, or that holds itself through a link.
    """
    seen: set[tuple[int, int]] = set()
    onerror = _unreadable if is_strict else _leave_out
    for place, folders, files in os.walk(root, followlinks=True, onerror=onerror):
        status = os.stat(place)  # noqa: PTH116 (one a folder, on a str)
        if (status.st_dev, status.st_ino) in seen:
            if not is_strict:
                folders.clear()
                continue
            raise DataError(f"{place} is reached twice through links. Remove one of the links.")
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = place[len(str(root)) :].strip("/")
        yield prefix and f"{prefix}/", sorted(name for name in files if not name.startswith("."))


def is_image(name: str) -> bool:
    """Whether a file name ends like an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def subfolders(root: Path) -> list[str]:
    """Names of the folders in `root`, sorted, without hidden ones."""
    with os.scandir(root) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _file_names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return frozenset()


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from error


def _leave_out(error: OSError) -> None:
    log.warning("left out the folder %s: %s", quoted(error.filename), error.strerror)
