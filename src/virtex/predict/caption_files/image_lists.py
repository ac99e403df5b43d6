"""From what a user names to a list of images: files, folders, globs, lists.

An image is a `str` from here on, as it will be in the output: a path.
"""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from virtex.data.checks import IMAGE_SUFFIXES, is_image, quoted, walk
from virtex.errors import DataError, raise_all
from virtex.predict.caption_files.options import NO_URLS

log = logging.getLogger("virtex")

STDIN = "-"
MAX_PROBLEMS = 20
ADDRESS = re.compile(r"(https?|ftp|file|s3|gs)://", re.IGNORECASE)


def find_images(
    given: Sequence[str | Path],
    *,
    lists: Sequence[str | Path] = (),
    stdin: BinaryIO | None = None,
) -> list[str]:
    """Return all images that are named, each once, in the order in which they are named.

    A folder is searched to any depth, and its images are sorted; what is hidden in it is left out.
    A linked folder is searched as well, but none twice, so that a loop of links ends.

    Args:
        given: Files, folders, globs (`**` goes to any depth), or `-` for a list from stdin.
        lists: Files with one file or folder a line, or each followed by a null byte, as
            `find -print0` writes them. A listed file may be absent: it is then a bad image like
            any other, so that a list of millions need not be checked first.
        stdin: That list.

    Raises:
        DataError: Names every path that is not there, every folder or glob without images, and
            every address of the web.
    """
    problems: list[str] = []
    images: list[str] = []
    for name in map(str, given):
        images += _read_list(STDIN, stdin, problems) if name == STDIN else _named(name, problems)
    for name in map(str, lists):
        images += _read_list(name, stdin if name == STDIN else None, problems)
    raise_all(DataError, "the images cannot be captioned", problems[:MAX_PROBLEMS])
    every: dict[str, str] = {}
    for path in map(str, map(Path, images)):
        every.setdefault(os.path.abspath(path), path)  # noqa: PTH100 (follows no links)
    return list(every.values())


def _named(name: str, problems: list[str]) -> list[str]:
    """Return the images that an argument stands for."""
    found = _existing(name, problems)
    if found is None:
        matches = list(_matches(name))
        found = [image for path in matches for image in _existing(str(path), problems) or []]
        if not matches:
            kind = "a glob without image files" if glob.has_magic(name) else "no file or folder"
            problems.append(f"{quoted(name) or repr(name)} is {kind}")
    return found


def _read_list(name: str, file: BinaryIO | None, problems: list[str]) -> list[str]:
    """Return the images that the lines of a list stand for; they need not exist."""
    try:
        names = _listed(Path(name).read_bytes() if file is None else file.read())
    except OSError as error:
        problems.append(f"the list {name} cannot be read ({error.strerror})")
        return []
    if not names:
        problems.append(f"{'stdin' if name == STDIN else f'the list {name}'} is empty")
    images: list[str] = []
    for listed in names:
        found = _existing(listed, problems)
        images += [listed] if found is None else found
    return images


def _existing(name: str, problems: list[str]) -> list[str] | None:
    """Return a file, or the images in a folder; None where there is neither."""
    if ADDRESS.match(name):
        problems.append(f"{quoted(name)} is an address, and none is fetched: {NO_URLS}")
        return []
    if os.path.isdir(name):  # noqa: PTH112 (Path("") would be the present folder)
        below = images_below(Path(name))
        if not below:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            problems.append(f"{name} holds no image files ({suffixes})")
        return below
    return [name] if os.path.isfile(name) else None  # noqa: PTH113


def _listed(content: bytes) -> list[str]:
    """Return the names in a list; where it has null bytes, a name may hold line breaks."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        pieces = content.split(b"\0")
    else:
        pieces = [line.rstrip(b"\r") for line in content.split(b"\n")]
    return [os.fsdecode(piece) for piece in pieces if piece]


def images_below(root: Path) -> list[str]:
    """Return the image files in a folder, to any depth, sorted by their paths' parts.

    What is hidden is left out, and files of other kinds are counted in the log. Linked folders are
    searched, but none twice.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for prefix, names in walk(root, is_strict=False):
        images = [root / f"{prefix}{name}" for name in names if is_image(name)]
        found += [path for path in images if path.is_file() or not path.exists()]  # no pipes
        others.update(Path(name).suffix.lower() for name in names if not is_image(name))
    if others:
        kinds = ", ".join(
            f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items())
        )
        log.info("%s: files that are not named as images are passed over: %s", root, kinds)
    return [str(path) for path in sorted(found)]


def _matches(pattern: str) -> Iterator[Path]:
    """Yield image files, and folders with some, that a glob matches, sorted; none that is hidden.

    Not the module glob, whose `**` goes round in loops of links.
    """
    if not glob.has_magic(pattern):
        return
    anchor = Path(pattern).anchor
    parts = Path(pattern).relative_to(anchor).parts
    try:
        paths = sorted(Path(anchor).glob(str(Path(*parts))))
    except (ValueError, OSError, NotImplementedError):  # such as a**: no glob after all
        return
    for path in paths:
        hidden = {part for part in path.parts if part.startswith(".") and part != ".."}
        is_wanted = is_image(path.name) if path.is_file() else path.is_dir() and images_below(path)
        if hidden <= set(parts) and is_wanted:
            yield path
