"""PASCAL VOC's own layout: per-class lists of images, and boxes in XML files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, absent_files, read_bytes, sha256_of_strings
from virtex.data.example import Example, Source
from virtex.data.packed import PackedStrings
from virtex.data.sources.voc_annotations import Objects, read_objects

SPLITS = ("train", "val", "trainval", "test")
ABSENT, DIFFICULT, PRESENT = -1, 0, 1
MARKS = {"-1": ABSENT, "0": DIFFICULT, "1": PRESENT}


class VocSource(Source):
    """VOCdevkit/VOC2007: ImageSets/Main/<class>_<split>.txt, JPEGImages, Annotations.

    A class marked 0 for an image (there only as `difficult` objects) is in `ignored_labels`.

    Args:
        root: VOC2007, the VOCdevkit around it, or the folder around that.
        split: train, val, trainval or test.
        with_boxes: Read Annotations too; without them the boxes are None.

    Raises:
        DataError: Everything that is wrong with the data.
    """

    def __init__(self, root: Path, *, split: str, with_boxes: bool = False) -> None:
        problems = Problems(f"VOC data in {root} (split {split})")
        self.root, self.split = find_voc(root), split
        lists = split_list(root, split).parent
        _check_split(lists, split, problems)
        rows = _read_rows(split_list(root, split), problems)
        image_ids = [row[0] for row in rows]
        self.categories = _find_categories(lists, split, problems)
        self._marks = _read_marks(lists, split, self.categories, image_ids, problems)
        self._image_ids = PackedStrings(image_ids)
        _check_images(self.root / "JPEGImages", image_ids, problems)
        self._objects: Objects | None = None
        if with_boxes:
            folder = self.root / "Annotations"
            self._objects = read_objects(folder, image_ids, self.categories, problems)
        problems.check()

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        index = range(len(self))[index]
        image_id, marks = self._image_ids[index], self._marks[index]
        objects = None if self._objects is None else self._objects.of(index)
        return Example(
            image_id=image_id,
            image=self.root / "JPEGImages" / f"{image_id}.jpg",
            labels=tuple(np.flatnonzero(marks == PRESENT).tolist()),
            ignored_labels=tuple(np.flatnonzero(marks == DIFFICULT).tolist()),
            boxes=None if objects is None else objects.boxes,
            box_labels=() if objects is None else tuple(objects.labels.tolist()),
        )

    def difficult(self, index: int) -> tuple[bool, ...]:
        """Which boxes of example `index` VOC marks as difficult; () if boxes were not read."""
        if self._objects is None:
            return ()
        return tuple(self._objects.of(range(len(self))[index]).is_difficult.tolist())

    def identity(self) -> dict[str, str | int]:
        marks = self._marks.tobytes().hex()
        identity: dict[str, str | int] = {
            "source": "voc",
            "root": str(self.root),
            "split": self.split,
            "images": len(self),
            "classes": len(self.categories),
            "sha256": sha256_of_strings([*self._image_ids, *self.categories, marks]),
        }
        if self._objects is not None:
            identity["boxes"] = len(self._objects.labels)
        return identity


def find_voc(root: Path) -> Path:
    """The folder that holds ImageSets: `root`, or one below it; `root` where there is none."""
    places = (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007")
    return next((place for place in places if (place / "ImageSets").is_dir()), root)


def split_list(root: Path, split: str) -> Path:
    """The file that lists the images of a split."""
    return find_voc(root) / "ImageSets" / "Main" / f"{split}.txt"


def _check_split(lists: Path, split: str, problems: Problems) -> None:
    if not (lists / f"{split}.txt").is_file():
        found = ", ".join(name for name in SPLITS if (lists / f"{name}.txt").is_file())
        problems.add(
            f"{lists / f'{split}.txt'} is missing; splits found: {found or 'none'}. Name "
            "VOCdevkit/VOC2007 with --data.root, and a split that is there with "
            "--data.train_split or --data.val_split."
        )
        problems.check()


def _read_rows(path: Path, problems: Problems) -> list[list[str]]:
    """The words of each line that is not blank."""
    lines = (read_bytes(path, problems) or b"").decode("utf-8", "replace").splitlines()
    return [words for line in lines if (words := line.split())]


def _find_categories(lists: Path, split: str, problems: Problems) -> tuple[str, ...]:
    """The classes that have a file for the split; the same ones must have it for other splits."""
    classes = {name: _classes_of(lists, name) for name in SPLITS}
    every = set[str]().union(*classes.values())
    found = _classes_of(lists, split)
    remedy = f"Unpack {lists} again; without them the classes' numbers would shift."
    missing = [f"{name}_{split}.txt" for name in sorted(every - found)]
    problems.add_all("class files missing", missing, remedy)
    if not found:
        problems.add(f"{lists} holds no class files, such as cat_{split}.txt. Unpack it again.")
    return tuple(sorted(found))


def _classes_of(lists: Path, split: str) -> set[str]:
    ending = f"_{split}.txt"
    return {path.name.removesuffix(ending) for path in lists.glob(f"*{ending}")}


def _read_marks(
    lists: Path,
    split: str,
    categories: Sequence[str],
    image_ids: Sequence[str],
    problems: Problems,
) -> NDArray[np.int8]:
    """(N, K): for each image and class PRESENT, ABSENT or DIFFICULT."""
    marks = np.full((len(image_ids), len(categories)), ABSENT, np.int8)
    place_of = {image_id: place for place, image_id in enumerate(image_ids)}
    broken, unlike = [], []
    for column, name in enumerate(categories):
        file_name = f"{name}_{split}.txt"
        rows = _read_rows(lists / file_name, problems)
        good = [row for row in rows if _is_mark(row)]
        broken += [f"{file_name}: {' '.join(row)}" for row in rows if not _is_mark(row)]
        if sorted(row[0] for row in good) != sorted(image_ids):
            unlike.append(file_name)
        for image_id, mark in good:
            if image_id in place_of:
                marks[place_of[image_id], column] = MARKS[mark]
    problems.add_all('lines that are not "image -1", "image 0" or "image 1"', broken, "Mend them.")
    remedy = f"Each must list the images of {split}.txt, once each. Unpack them again."
    problems.add_all("class files that list other images", unlike, remedy)
    return marks


def _is_mark(row: list[str]) -> bool:
    return len(row) == 2 and row[1] in MARKS


def _check_images(folder: Path, image_ids: Sequence[str], problems: Problems) -> None:
    if not image_ids:
        problems.add("The split lists no images. Unpack ImageSets again.")
    twice = len(image_ids) - len(set(image_ids))
    if twice:
        problems.add(f"{twice:,} images are listed more than once. Remove the repetitions.")
    strange = [image_id for image_id in image_ids if "/" in image_id or "\0" in image_id]
    problems.add_all("images whose name is a path", strange, f"Move them into {folder}.")
    plain = (f"{image_id}.jpg" for image_id in image_ids if "/" not in image_id)
    absent = absent_files(folder, plain)
    problems.add_all("images listed but absent", absent, f"Put them into {folder}.")
