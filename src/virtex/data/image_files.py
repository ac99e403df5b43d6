"""Image files in folders: which names are images, and what is passed over."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from virtex.data.checks import quoted
from virtex.errors import DataError, listing, one_line

log = logging.getLogger("virtex")

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".webp", ".gif"}
    | {".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
)
MAX_KINDS = 10
"""Most suffixes that are named of the files passed over."""
MAX_SUFFIX = 20
"""Most characters of a suffix that are shown."""


class PassedOver:
    """A count, by suffix or reason, of the files that are left out of a data set."""

    def __init__(self, counts: Counter[str] | None = None) -> None:
        self.counts = Counter() if counts is None else counts

    def add(self, names: Iterable[str]) -> None:
        """Count files by their suffixes."""
        suffixes = (quoted(suffix_of(name), limit=MAX_SUFFIX) for name in names)
        self.counts.update(suffix or "without suffix" for suffix in suffixes)

    def __str__(self) -> str:
        """Return the counts, the largest first: `passed over 6 files: 4 .heic, 2 .txt2`."""
        total = self.counts.total()
        kinds = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown = listing([f"{count:,} {quoted(kind)}" for kind, count in kinds], limit=MAX_KINDS)
        return f"passed over {total:,} file{'s' * (total != 1)}: {shown}"

    def log(self, where: object) -> None:
        """Log the counts, if there are any, behind the name of a folder or file."""
        if self.counts:
            log.warning("%s: %s", one_line(str(where)), self)

    def within(self, text: str) -> str:
        """Return a sentence, with the counts in brackets before its full stop."""
        return f"{text.removesuffix('.')} ({self})." if self.counts else text


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (one a file)


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image format."""
    return suffix_of(name) in IMAGE_SUFFIXES


def images_below(root: Path) -> tuple[list[str], PassedOver]:
    """Return the image files below a folder, sorted by the parts of their paths, and the others.

    Hidden files are left out. Links to folders are followed, but no folder is searched twice, so
    that loops of links end.
    """
    found: list[Path] = []
    passed_over = PassedOver()
    for prefix, names in walk(root, is_strict=False):
        found += [root / f"{prefix}{name}" for name in names if is_image(name)]
        passed_over.add(name for name in names if not is_image(name))
    return [str(path) for path in sorted(found)], passed_over


def walk(root: Path, *, is_strict: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder under `root`, as a prefix that is empty or ends in /, with its file names.

    Both are sorted. Hidden files and folders are left out; links are followed.

    Raises:
        DataError: `is_strict`, and a folder, else left out, cannot be read or is reached twice.
    """
    seen: set[tuple[int, int]] = set()
    pending = [""]  # a stack, since folders may be deeper than Python's
    while pending:
        prefix = pending.pop()
        folder = os.path.join(root, prefix)  # noqa: PTH118 (one a folder)
        try:
            status = os.stat(folder)  # noqa: PTH116
            folders, files = _entries(folder)
        except OSError as error:
            _leave_out(folder, error.strerror, is_strict=is_strict)
            continue
        if (status.st_dev, status.st_ino) in seen:
            if is_strict:
                shown = quoted(folder)
                raise DataError(f"{shown} is reached twice through links. Remove one of the links.")
            continue
        seen.add((status.st_dev, status.st_ino))
        yield prefix, files
        pending += [f"{prefix}{name}/" for name in reversed(folders)]


def subfolders(root: Path) -> list[str]:
    """Return the names of the folders in `root`, sorted, without hidden ones.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        return _entries(str(root))[0]
    except OSError as error:
        raise DataError(f"{one_line(str(root))} cannot be read ({error.strerror}).") from error


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted."""
    names: tuple[list[str], list[str]] = ([], [])
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] != ".":
                names[not _is_folder(entry)].append(entry.name)
    return sorted(names[0]), sorted(names[1])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _leave_out(folder: str, reason: str | None, *, is_strict: bool) -> None:
    if is_strict:
        raise DataError(f"{quoted(folder)} cannot be read ({reason}).")
    log.warning("left out the folder %s: %s", quoted(folder), reason)
