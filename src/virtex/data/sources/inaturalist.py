"""iNaturalist 2018: a file in COCO's format with one species for each image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, only_in_one, paused_collection
from virtex.data.example import Example, ImageFile, Source
from virtex.data.sources.coco_file import CocoFile
from virtex.data.sources.coco_images import read_images
from virtex.data.sources.coco_instances import read_categories, read_labels
from virtex.errors import DataError, listing, raise_all

YEAR = "2018"


class InaturalistSource(Source):
    """The images in root/{split}.json, or root/{split}2018.json, each with one label.

    Args:
        root: The folder of train2018.json and train_val2018.
    """

    @paused_collection()
    def __init__(self, root: Path, *, split: str) -> None:
        problems = Problems(f"iNaturalist data in {root} (split {split})")
        path = _annotation_path(root, split, problems)
        self.root, self.split = root, path.stem
        file = CocoFile(path, problems)
        self._sha256 = file.sha256
        self._images = read_images(file, root)
        categories = read_categories(file)
        self.categories = tuple(categories.values())
        self._labels = _read_image_labels(file, self._images.indices(), categories)
        problems.check()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        return replace(self._images[index], labels=self.labels(index))

    def image_file(self, index: int) -> ImageFile:
        return self._images.file(index)

    def labels(self, index: int) -> tuple[int, ...]:
        return (int(self._labels[index]),)

    def identity(self) -> dict[str, str | int]:
        return {
            "source": "inaturalist",
            "root": str(self.root),
            "split": self.split,
            "images": len(self),
            "classes": len(self.categories),
            "sha256": self._sha256,
        }


def find_annotations(root: Path, split: str) -> Path | None:
    """Return the file of `split` or of `split` with 2018 appended; None if neither exists."""
    paths = (root / f"{name}.json" for name in (split, split + YEAR))
    return next((path for path in paths if path.is_file()), None)


@paused_collection()
def check_same_categories(train: InaturalistSource, val_path: Path) -> None:
    """Raise a DataError unless the validation file has the same categories in the same order."""
    problems = Problems(f"the categories of {val_path}")
    val = tuple(read_categories(CocoFile(val_path, problems)).values())
    problems.check()
    if val == train.categories:
        return
    train_path = find_annotations(train.root, train.split)
    assert train_path is not None, "the source was read from it"
    differences = only_in_one((train_path, set(train.categories)), (val_path, set(val)))
    raise_all(
        DataError,
        "training and validation images must have the same categories in the same order of ids "
        "(take both files from one release)",
        differences or ["the order differs"],
    )


def _annotation_path(root: Path, split: str, problems: Problems) -> Path:
    path = find_annotations(root, split)
    if path is None:
        found = sorted(one.name for one in root.glob("*.json"))
        problems.fail(
            f"{root} must hold {split}.json or {split}{YEAR}.json but holds "
            f"{listing(found) or 'no such file'}. Name the folder with --data.root, and the file "
            "without .json with --data.train_split or --data.val_split."
        )
    return path


def _read_image_labels(
    file: CocoFile, indices: dict[str, int], categories: dict[str, str]
) -> NDArray[np.int32]:
    """Return the label of each image (N,)."""
    rows = list(file.annotations(indices))
    images = np.asarray([index for index, _ in rows], np.int64)
    labels = np.zeros(len(indices), np.int32)
    labels[images] = read_labels(file, rows, categories)
    counts = np.bincount(images, minlength=len(indices))
    without = [image_id for image_id, index in indices.items() if counts[index] == 0]
    several = [image_id for image_id, index in indices.items() if counts[index] > 1]
    file.add_all("images without a category", without, "Annotate or remove them.")
    file.add_all("images with several annotations", several, "Leave one for each image.")
    return labels
