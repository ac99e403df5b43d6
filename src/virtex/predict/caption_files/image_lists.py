"""From what a user names to a list of images: files, folders, globs, lists, addresses.

An image is a `str` from here on, as it will stand in the output: a path, or an http(s) address.
"""

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from virtex.data.checks import IMAGE_SUFFIXES, is_image, quoted
from virtex.errors import ConfigError, DataError, VirTexError, listing
from virtex.predict.caption_files.web_images import is_address, scheme_of

log = logging.getLogger("virtex")

STDIN = "-"


def find_images(
    given: Sequence[str | Path],
    *,
    lists: Sequence[str | Path] = (),
    allow_urls: bool = False,
    stdin: BinaryIO | None = None,
) -> list[str]:
    """All images that are named, each once, in the order in which they are named.

    A folder is searched to any depth, and its images are sorted; what is hidden in it is left out.
    A linked folder is searched as well, but none twice, so that a loop of links ends.

    Args:
        given: Files, folders, globs (`**` goes to any depth), addresses, or `-` for stdin.
        lists: Files with one file, folder or address a line, or each followed by a null byte, as
            `find -print0` writes them. A listed file may be absent: it is then a bad image like
            any other, so that a list of millions need not be checked first.
        allow_urls: Take http(s) addresses.
        stdin: What `-` stands for: a list.

    Raises:
        DataError: Names every path that is not there, and every folder or glob without images.
        ConfigError: Addresses that are not allowed.
    """
    search = _Search(allow_urls)
    for name in given:
        if str(name) == STDIN:
            search.add_list(STDIN, stdin)
        else:
            search.add(str(name))
    for name in lists:
        search.add_list(str(name), stdin if str(name) == STDIN else None)
    search.check()
    return list(search.images.values())


class _Search:
    """Images found so far, and what is wrong with what was named."""

    def __init__(self, allow_urls: bool) -> None:
        self.allow_urls = allow_urls
        self.images: dict[str, str] = {}
        """By what tells them apart: the absolute path, or the address."""
        self._absent: list[str] = []
        self._urls: list[str] = []
        self._other_schemes: list[str] = []

    def add(self, name: str) -> None:
        """What an argument names."""
        if not self._add_url(name) and not self._add_path(name):
            matches = list(_matches(name))
            for path in matches:
                self._add_path(str(path))
            if not matches:
                kind = "a glob without image files" if glob.has_magic(name) else "no file or folder"
                self._absent.append(f"{quoted(name) or repr(name)} is {kind}")

    def add_list(self, name: str, file: BinaryIO | None) -> None:
        """What the lines of a list name."""
        try:
            content = Path(name).read_bytes() if file is None else file.read()
        except OSError as error:
            self._absent.append(f"the list {name} cannot be read ({error.strerror})")
            return
        names = _listed(content)
        if not names:
            self._absent.append(f"{'stdin' if name == STDIN else f'the list {name}'} is empty")
        for listed in names:
            if not self._add_url(listed) and not self._add_path(listed):
                self._keep(listed)

    def check(self) -> None:
        """Raise all that is wrong."""
        problems: list[str] = []
        if self._absent:
            problems.append(f"cannot caption: {'; '.join(self._absent[:20])}.")
        if self._urls:
            problems.append(
                f"{listing(self._urls)}: add --allow_urls (in Python allow_urls=True) to fetch "
                "images from the web."
            )
        if self._other_schemes:
            problems.append(
                f"{listing(self._other_schemes)}: only http and https addresses are fetched; name "
                "a file by its path."
            )
        if problems:
            kind: type[VirTexError] = DataError if self._absent else ConfigError
            raise kind(" ".join([*problems, "Give image files, or folders or globs of them."]))

    def _add_url(self, name: str) -> bool:
        """Whether it is an address."""
        if scheme_of(name) is None:
            return False
        if not is_address(name):
            self._other_schemes.append(quoted(name))
        elif not self.allow_urls:
            self._urls.append(quoted(name))
        else:
            self.images.setdefault(name, name)
        return True

    def _add_path(self, name: str) -> bool:
        """Whether it is a file, or a folder."""
        if os.path.isdir(name):  # noqa: PTH112 (Path("") would be the present folder)
            below = images_below(Path(name))
            for path in below:
                self._keep(path)
            if not below:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                self._absent.append(f"{name} holds no image files ({suffixes})")
            return True
        if os.path.isfile(name):  # noqa: PTH113
            self._keep(name)
            return True
        return False

    def _keep(self, name: str) -> None:
        path = str(Path(name))
        self.images.setdefault(os.path.abspath(path), path)  # noqa: PTH100 (follows no links)


def _listed(content: bytes) -> list[str]:
    """What a list names; where it has null bytes, a name may hold line breaks."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        pieces = content.split(b"\0")
    else:
        pieces = [line.rstrip(b"\r") for line in content.split(b"\n")]
    return [os.fsdecode(piece) for piece in pieces if piece]


def images_below(root: Path) -> list[str]:
    """The image files in a folder, to any depth, sorted by their paths' parts.

    What is hidden is left out, and files of other kinds are counted in the log. Linked folders are
    searched, but none twice.
    """
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    others: Counter[str] = Counter()
    for place, folders, files in os.walk(root, followlinks=True, onerror=_leave_out):
        status = os.stat(place)  # noqa: PTH116 (one a folder, on a str)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = [name for name in files if not name.startswith(".")]
        images = [Path(place, name) for name in shown if is_image(name)]
        found += [path for path in images if path.is_file() or not path.exists()]  # no pipes
        others.update(Path(name).suffix.lower() for name in shown if not is_image(name))
    if others:
        kinds = ", ".join(
            f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(others.items())
        )
        log.info("%s: files that are not named as images are passed over: %s", root, kinds)
    return [str(path) for path in sorted(found)]


def _leave_out(error: OSError) -> None:
    log.warning("left out the folder %s: %s", error.filename, error.strerror)


def _matches(pattern: str) -> Iterator[Path]:
    """Image files, and folders that hold some, that a glob matches, sorted; none that is hidden.

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
