"""The folder that a list's images lie in, where the list does not say."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from virtex.data.checks import Problems, quoted
from virtex.data.image_files import subfolders
from virtex.errors import DataError, listing

log = logging.getLogger("virtex")

LISTS_APART = re.compile(
    "(annotation|caption|label|list|split|token)s?|karpathy.*|.*_text", re.IGNORECASE
)
"""Names of folders that hold lists alone, with the images in folders beside them."""
NUM_TRIED = 20
"""Listed images that are looked for in each folder."""
MAX_FOLDERS = 1000


def image_folder(
    list_path: Path,
    names: Iterable[str],
    problems: Problems,
    *,
    named: Path | None = None,
    first: Path | None = None,
) -> Path:
    """Return the folder that holds the listed images.

    Args:
        list_path: The file that lists them: they are searched beside it and in subfolders, then
            beside a folder of lists.
        names: Paths of the images below the folder.
        named: The folder that the user named, or a parent of the right one.
        first: The folder to look in first.

    Raises:
        DataError: The images lie in several folders near the list.
    """
    roots = [named or list_path.parent]
    if named is None and LISTS_APART.fullmatch(list_path.parent.name):
        roots.append(list_path.parent.parent)
    if first is not None and first.is_dir():
        roots.insert(0, first)
    tried = [name for name in islice(names, NUM_TRIED) if name and "\0" not in name]
    for root in roots:
        best = _best(root, tried)
        if len(best) > 1 and best[0] != root:
            shown = listing([quoted(folder) for folder in best])
            problems.fail(
                f"Several folders hold its images: {shown}. Name one with --data.image_root."
            )
        if best:
            if best[0] not in (named, list_path.parent):
                log.info("%s: the images are in %s", problems.subject, quoted(best[0]))
            return best[0]
    return named or list_path.parent


def _best(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders, of a root and those below it, with the most of some images; or none."""
    found = {folder: _num_present(folder, names) for folder in _with_subfolders(root)}
    most = max(found.values())
    return [folder for folder, count in found.items() if count == most > 0]


def _num_present(folder: Path, names: Sequence[str]) -> int:
    return sum(os.path.isfile(folder / name) for name in names)  # noqa: PTH113 (odd names)


def _with_subfolders(root: Path) -> Iterator[Path]:
    """Yield a folder, then those in it, then those in these, up to MAX_FOLDERS."""
    below = [root / name for name in _subfolders(root)]
    deeper = (folder / name for folder in below for name in _subfolders(folder))
    yield from islice(chain([root], below, deeper), MAX_FOLDERS)


def _subfolders(folder: Path) -> list[str]:
    try:
        return subfolders(folder)
    except DataError:
        return []
