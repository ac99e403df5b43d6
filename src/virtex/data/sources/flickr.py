"""Flickr8k's and Flickr30k's lists of captions.

Flickr8k.token.txt and results_20130124.token (1000268201_693b08cb0e.jpg#0, a tab, the caption),
captions.txt (image,caption) and results.csv (image_name| comment_number| comment), with
Flickr_8k.trainImages.txt, devImages and testImages, or train.txt, val.txt and test.txt beside them.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from virtex import files
from virtex.data.checks import Problems, head_of, lines_of, quoted, read_bytes
from virtex.data.image_files import is_image
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.data.sources.image_folders import image_folder
from virtex.data.sources.listed_captions import ListedCaptions
from virtex.errors import listing

log = logging.getLogger("virtex")

NAMES = ("Flickr8k.token.txt", "*.token", "captions.txt", "results.csv", "*/Flickr8k.token.txt")
"""Usual names of the list, the preferred one first."""
TAGGED = re.compile(r"([^\t]+?)#\d+\t(.*)")
SEPARATED = {
    ",": re.compile(r"([^,]+),(.*)"),
    "|": re.compile(r"([^|]+?)\s*\|\s*\d+\s*\|?\s*(.*)"),
}
"""Lines of lists with a header; one row of Flickr30k's results.csv lacks its second bar."""
HEADERS = {"image,caption": ",", "image_name| comment_number| comment": "|"}
"""First lines of the lists that have one."""
OTHER_NAMES = {"val": ("val", "dev")}
HEAD_BYTES = 4096
FOREIGN_LIMIT = 0.001
"""Largest fraction of lines for files that are no images: Flickr8k's list has five for
2258277193_586949ec62.jpg.1."""


class Line(NamedTuple):
    """One caption, or a line that cannot be read, whose name is empty."""

    number: int
    name: str
    caption: str


class FlickrSource(ListedCaptions):
    """The images of a list of captions, or those that a split's list names.

    Args:
        root: The list of captions, or the folder that holds one.
        split_path: The list of the split's images, by default all.
        image_root: Folder of the images; by default one near the list.
        with_captions: See `ListedCaptions`.
        missing_caption_limit: See `SourceConfig`.
    """

    def __init__(
        self,
        root: Path,
        *,
        split_path: Path | None = None,
        image_root: Path | None = None,
        with_captions: bool = True,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
    ) -> None:
        problems = Problems(f"the list of captions {root}")
        path = flickr_file(root)
        if path is None:
            names = ", ".join(NAMES[:4])
            problems.fail(f"There is none: no {names}. Name the file with --data.root.")
        listed = _gather(_lines(path, problems), problems)
        origin = {"source": "flickr", "root": str(path)}
        if split_path is not None:
            listed = _chosen(listed, split_path, problems)
            origin |= {"split": split_path.name, "split_sha256": files.sha256(split_path)}
        problems.check()
        folder = image_folder(path, listed, problems, named=image_root)
        super().__init__(
            listed,
            folder=folder,
            origin={**origin, "image_root": str(folder), "sha256": files.sha256(path)},
            problems=problems,
            with_captions=with_captions,
            missing_caption_limit=missing_caption_limit,
        )


def flickr_file(root: Path) -> Path | None:
    """Return the list that a root names: itself, or the first of NAMES in the folder."""
    if not root.is_dir():
        return root if root.is_file() else None
    found = (path for pattern in NAMES for path in sorted(root.glob(pattern)))
    return next((path for path in found if is_flickr_file(path)), None)


def split_list(root: Path, split: str) -> Path | None:
    """Return the list of a split's images beside the captions, or None."""
    path = flickr_file(root)
    if path is None:
        return None
    if (path.parent / split).is_file():
        return path.parent / split
    for name in OTHER_NAMES.get(split, (split,)):
        for pattern in (f"*.{name}Images.txt", f"{name}Images.txt", f"{name}.txt"):
            found = [one for one in sorted(path.parent.glob(pattern)) if one.is_file()]
            if found:
                return found[0]
    return None


def is_flickr_file(path: Path) -> bool:
    """Whether the first line of a file is that of a list of captions, and not of a CSV table."""
    head = head_of(path, HEAD_BYTES).decode("utf-8", "replace")
    first = head.lstrip("\ufeff").partition("\n")[0].rstrip()
    match, separator = TAGGED.fullmatch(first), HEADERS.get(first.lower())
    if separator == ",":
        return path.suffix.lower() != ".csv"
    return separator is not None or (match is not None and is_image(match[1]))


def _lines(path: Path, problems: Problems) -> Iterator[Line]:
    data = read_bytes(path, problems)
    try:
        text = (data or b"").decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.fail("It is not UTF-8. Save it as UTF-8.")
    lines = text.split("\n")
    separator = HEADERS.get(lines[0].strip().lower())
    pattern = TAGGED if separator is None else SEPARATED[separator]
    start = 0 if separator is None else 1
    for number, line in enumerate(lines[start:], start=start + 1):
        if line.strip():
            match = pattern.fullmatch(line.rstrip("\r"))
            name, caption = match.groups() if match else ("", "")
            yield Line(number, name, _unquoted(caption) if separator == "," else caption)


def _unquoted(caption: str) -> str:
    """Return a CSV field without its quotes."""
    is_quoted = len(caption) > 1 and caption[0] == caption[-1] == '"'
    return caption[1:-1].replace('""', '"') if is_quoted else caption


def _gather(lines: Iterable[Line], problems: Problems) -> dict[str, list[object]]:
    """Return the captions of each image; a few lines of other files are logged and left out."""
    listed: dict[str, list[object]] = {}
    broken, foreign, total = [], [], 0
    for line in lines:
        total += 1
        if not line.name:
            broken.append(f"line {line.number}")
        elif is_image(line.name):
            listed.setdefault(line.name, []).append(line.caption.strip())
        else:
            foreign.append(line.name)
    remedy = "Each needs an image and a caption: NAME.jpg#0, a tab, and the text."
    problems.add_all("lines that cannot be read", broken, remedy)
    if len(foreign) > FOREIGN_LIMIT * total:
        problems.add_all("captions of files that are no images", foreign, "Remove the lines.")
    elif foreign:
        shown = listing([quoted(name) for name in foreign])
        log.warning("%s: left out %d captions of %s", problems.subject, len(foreign), shown)
    return listed


def _chosen(
    listed: dict[str, list[object]], split_path: Path, problems: Problems
) -> dict[str, list[object]]:
    """Return the images that a split's list names, with or without suffix, in its order."""
    by_stem = {name.rpartition(".")[0]: name for name in listed}
    text = (read_bytes(split_path, problems) or b"").decode("utf-8-sig", "replace")
    names = [line.strip() for line in lines_of(text) if line.strip()]
    found = {name: name if name in listed else by_stem.get(name) for name in names}
    without = [name for name, image in found.items() if image is None]
    problems.add_all(f"images of {split_path.name} without captions", without, "Remove them.")
    return {image: listed[image] for image in found.values() if image is not None}
