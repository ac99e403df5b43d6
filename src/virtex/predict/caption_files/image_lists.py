"""Paths of the images that a user names by files, folders, globs and lists.

Paths are `str`, as they will be in the output.
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

log = logging.getLogger("virtex")

STDIN = "-"
MAX_PROBLEMS = 20
NO_URLS = "fetch images first, for example by `wget --directory-prefix images/ URL`, and name files"
ADDRESS = re.compile(r"(https?|ftp|file|s3|gs)://", re.IGNORECASE)


def find_images(
    given: Sequence[str | Path],
    *,
    lists: Sequence[str | Path] = (),
    stdin: BinaryIO | None = None,
) -> list[str]:
    """Return the images that are named, in that order, without duplicates.

    A folder is searched recursively, and its images are sorted; hidden files are left out.

    Args:
        given: Files, folders, globs (`**` matches any depth), or `-` for a list from `stdin`.
        lists: Files with one file or folder a line, or each followed by a null byte, as
            `find -print0` writes them. Whether a listed file exists is not checked, since a list
            may hold millions.
        stdin: A list of the same form.

    Raises:
        DataError: A path does not exist, a folder or glob has no images, or a web address is
            given; names all of them.
    """
    problems: list[str] = []
    images: list[str] = []
    for name in map(str, given):
        images += _read_list(name, stdin, problems) if name == STDIN else _named(name, problems)
    for name in map(str, lists):
        images += _read_list(name, stdin, problems)
    raise_all(DataError, "the images cannot be read", problems[:MAX_PROBLEMS])
    unique: dict[str, str] = {}
    for path in map(str, map(Path, images)):
        unique.setdefault(os.path.abspath(path), path)  # noqa: PTH100 (follows no links)
    return list(unique.values())


def _named(name: str, problems: list[str]) -> list[str]:
    """Return the images that an argument names."""
    found = _existing(name, problems)
    if found is None:
        matches = list(_matches(name))
        found = [image for path in matches for image in _existing(str(path), problems) or []]
        if not matches:
            kind = "a glob without image files" if glob.has_magic(name) else "no file or folder"
            problems.append(f"{quoted(name) or repr(name)} is {kind}")
    return found


def _read_list(name: str, stdin: BinaryIO | None, problems: list[str]) -> list[str]:
    """Return the images that a list names; they need not exist."""
    try:
        content = stdin.read() if stdin and name == STDIN else Path(name).read_bytes()
    except OSError as error:
        problems.append(f"the list {name} cannot be read ({error.strerror})")
        return []
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:  # names may hold line breaks
        pieces = content.split(b"\0")
    else:
        pieces = [line.rstrip(b"\r") for line in content.split(b"\n")]
    names = [os.fsdecode(piece) for piece in pieces if piece]
    if not names:
        problems.append(f"{'stdin' if name == STDIN else f'the list {name}'} is empty")
    images: list[str] = []
    for listed in names:
        found = _existing(listed, problems)
        images += [listed] if found is None else found
    return images


def _existing(name: str, problems: list[str]) -> list[str] | None:
    """Return a file, or the images in a folder; None where neither exists."""
    if ADDRESS.match(name):
        problems.append(f"{quoted(name)} is a web address, and none is fetched: {NO_URLS}")
        return []
    if os.path.isdir(name):  # noqa: PTH112 (Path("") would be the working folder)
        images = images_below(Path(name))
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            problems.append(f"{name} holds no image files ({suffixes})")
        return images
    return [name] if os.path.isfile(name) else None  # noqa: PTH113


def images_below(root: Path) -> list[str]:
    """Return the image files below a folder, sorted by the parts of their paths.

    Hidden files are left out; the log counts other files. Links to folders are followed, but no
    folder is searched twice, so that loops of links end.
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
        log.info("%s: files that are not named as images are ignored: %s", root, kinds)
    return [str(path) for path in sorted(found)]


def _matches(pattern: str) -> Iterator[Path]:
    """Yield the image files and folders of images that match a glob, sorted, without hidden ones.

    The module glob would not end where links to folders form a loop.
    """
    if not glob.has_magic(pattern):
        return
    anchor = Path(pattern).anchor
    parts = Path(pattern).relative_to(anchor).parts
    try:
        paths = sorted(Path(anchor).glob(str(Path(*parts))))
    except (ValueError, OSError, NotImplementedError):  # such as a**, which is not allowed
        return
    for path in paths:
        hidden = {part for part in path.parts if part.startswith(".") and part != ".."}
        is_wanted = is_image(path.name) if path.is_file() else path.is_dir() and images_below(path)
        if hidden <= set(parts) and is_wanted:
            yield path
