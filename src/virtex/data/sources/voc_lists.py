"""VOC's lists of the images of a split, and of those that show each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, absent_files, lines_of, read_bytes
from virtex.data.sources.voc_splits import SPLITS, YearSplit, split_list, voc_folder

ABSENT, DIFFICULT, PRESENT = -1, 0, 1
MARKS = {"-1": ABSENT, "0": DIFFICULT, "1": PRESENT}


class VocLists(NamedTuple):
    """A split of one year with N images and K classes."""

    folder: Path
    """Folder of the year, such as VOC2007."""
    image_ids: list[str]
    categories: tuple[str, ...]
    marks: NDArray[np.int8]
    """PRESENT, ABSENT or DIFFICULT for each image and class, (N, K)."""


def read_lists(root: Path, part: YearSplit, problems: Problems) -> VocLists:
    """Return the lists of a split, and check that its images exist; root: see `VocSource`."""
    if not root.is_dir():
        problems.fail(f"{root} is no folder. Name VOCdevkit with --data.root.")
    path, folder = split_list(root, part), voc_folder(root, part.year)
    _check_split(path, problems)
    image_ids = [row[0] for row in _read_rows(path, problems)]
    categories = _find_categories(path.parent, part.name, problems)
    marks = _read_marks(path, categories, image_ids, problems)
    _check_images(folder / "JPEGImages", image_ids, problems)
    return VocLists(folder, image_ids, categories, marks)


def _check_split(path: Path, problems: Problems) -> None:
    lists = path.parent
    if not path.is_file():
        found = ", ".join(name for name in SPLITS if (lists / f"{name}.txt").is_file())
        problems.fail(
            f"{path} is missing; splits found: {found or 'none'}. Name VOCdevkit with --data.root, "
            "and existing splits with --data.train_split or --data.val_split: trainval, or "
            "with years 2007_trainval+2012_trainval."
        )


def _read_rows(path: Path, problems: Problems) -> list[list[str]]:
    """Return the words of each line that is not blank."""
    text = (read_bytes(path, problems) or b"").decode("utf-8", "replace")
    return [words for line in lines_of(text) if (words := line.split())]


def _find_categories(lists: Path, split: str, problems: Problems) -> tuple[str, ...]:
    """Return the classes with a file for the split, which must be the same for all splits."""
    classes = {name: _classes_of(lists, name) for name in SPLITS}
    every = set[str]().union(*classes.values())
    found = _classes_of(lists, split)
    remedy = f"Unpack {lists} again; without them the class ids would shift."
    missing = [f"{name}_{split}.txt" for name in sorted(every - found)]
    problems.add_all("class files missing", missing, remedy)
    if not found:
        problems.add(f"{lists} holds no class files, such as cat_{split}.txt. Unpack it again.")
    return tuple(sorted(found))


def _classes_of(lists: Path, split: str) -> set[str]:
    ending = f"_{split}.txt"
    return {path.name.removesuffix(ending) for path in lists.glob(f"*{ending}")}


def _read_marks(
    path: Path, categories: Sequence[str], image_ids: Sequence[str], problems: Problems
) -> NDArray[np.int8]:
    """Return the mark of each image for each class (N, K); `path` lists the split's images."""
    marks = np.full((len(image_ids), len(categories)), ABSENT, np.int8)
    index_of = {image_id: index for index, image_id in enumerate(image_ids)}
    broken, unlike = [], []
    for column, name in enumerate(categories):
        file_name = f"{name}_{path.name}"
        rows = _read_rows(path.with_name(file_name), problems)
        good = [row for row in rows if _is_mark(row)]
        broken += [f"{file_name}: {' '.join(row)}" for row in rows if not _is_mark(row)]
        if sorted(row[0] for row in good) != sorted(image_ids):
            unlike.append(file_name)
        for image_id, mark in good:
            if image_id in index_of:
                marks[index_of[image_id], column] = MARKS[mark]
    problems.add_all(
        'lines that are not "image -1", "image 0" or "image 1"', broken, "Correct them."
    )
    remedy = f"Each must list the images of {path.name}, once each. Unpack them again."
    problems.add_all("class files that list other images", unlike, remedy)
    return marks


def _is_mark(row: list[str]) -> bool:
    return len(row) == 2 and row[1] in MARKS


def _check_images(folder: Path, image_ids: Sequence[str], problems: Problems) -> None:
    if not image_ids:
        problems.add("The split lists no images. Unpack ImageSets again.")
    twice = len(image_ids) - len(set(image_ids))
    if twice:
        problems.add(f"{twice:,} images are listed more than once. Remove the duplicates.")
    strange = [image_id for image_id in image_ids if "/" in image_id or "\0" in image_id]
    problems.add_all("images whose name is a path", strange, f"Move them into {folder}.")
    plain = (f"{image_id}.jpg" for image_id in image_ids if "/" not in image_id)
    absent = absent_files(folder, plain)
    problems.add_all("images listed but absent", absent, f"Put them into {folder}.")
