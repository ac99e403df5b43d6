"""Paths of the images that a user names by files, folders, globs and lists.

Paths are `str`, as they will be in the output.
"""

import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from virtex.data.checks import quoted
from virtex.data.image_files import IMAGE_SUFFIXES, images_below, is_image, walk
from virtex.errors import DataError, one_line, raise_all
from virtex.files import read_regular

STDIN = "-"
STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Paths at which a shell writes a list, as for `--list <(find photos)`."""
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
    if found is not None:
        return found
    images: list[str] = []
    for path in _matches(name):
        if path.is_dir():
            below, passed_over = images_below(path)
            passed_over.log(path)
            images += below
        elif is_image(path.name):
            images.append(str(path))
    if not images:
        kind = "a glob without image files" if glob.has_magic(name) else "no file or folder"
        problems.append(f"{quoted(name) or repr(name)} is {kind}")
    return images


def _read_list(name: str, stdin: BinaryIO | None, problems: list[str]) -> list[str]:
    """Return the images that a list names; they need not exist."""
    try:
        content = _content(name, stdin)
    except OSError as error:
        problems.append(f"the list {one_line(name)} cannot be read ({error.strerror})")
        return []
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:  # names may hold line breaks
        pieces = content.split(b"\0")
    else:
        pieces = [line.rstrip(b"\r") for line in content.split(b"\n")]
    names = [os.fsdecode(piece) for piece in pieces if piece]
    if not names:
        shown = "stdin" if name == STDIN else f"the list {one_line(name)}"
        problems.append(f"{shown} is empty")
    images: list[str] = []
    for listed in names:
        found = _existing(listed, problems)
        images += [listed] if found is None else found
    return images


def _content(name: str, stdin: BinaryIO | None) -> bytes:
    if stdin and name == STDIN:
        return stdin.read()
    return Path(name).read_bytes() if name.startswith(STREAMS) else bytes(read_regular(name))


def _existing(name: str, problems: list[str]) -> list[str] | None:
    """Return a file, or the images in a folder; None where neither exists."""
    if ADDRESS.match(name):
        problems.append(f"{quoted(name)} is a web address, and none is fetched: {NO_URLS}")
        return []
    if os.path.isdir(name):  # noqa: PTH112 (Path("") would be the working folder)
        images, passed_over = images_below(Path(name))
        passed_over.log(name)
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            problems.append(f"{one_line(name)} holds no image files ({suffixes})")
        return images
    return [name] if os.path.isfile(name) else None  # noqa: PTH113


def _matches(pattern: str) -> list[Path]:
    """Return the files and folders that match a glob, sorted.

    A part of the pattern that exists as it is written is no glob, since names hold brackets. The
    module glob would not end where links to folders form a loop.
    """
    if not glob.has_magic(pattern):
        return []
    anchor = Path(pattern).anchor
    found = [Path(anchor)]
    for part in Path(pattern).relative_to(anchor).parts:
        children = [child for folder in found for child in _children(folder, part)]
        found = list(dict.fromkeys(children))
    return sorted(found)


def _children(folder: Path, part: str) -> list[Path]:
    """Return the files and folders in a folder that match a part of a pattern."""
    if part == "**":
        return [folder / prefix for prefix, _ in walk(folder, is_strict=False)]
    if os.path.lexists(folder / part):
        return [folder / part]
    if not glob.has_magic(part):
        return []
    patterns = (part, part.replace("[", "[[]"))  # a bracket may belong to the name
    try:
        names = os.listdir(folder)  # noqa: PTH208 (yields the same names)
    except OSError:  # a file, or a folder that may not be read
        return []
    return [
        folder / name
        for name in names
        if (name[0] != "." or part[0] == ".") and any(fnmatchcase(name, one) for one in patterns)
    ]
