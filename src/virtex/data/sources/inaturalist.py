"""iNaturalist 2018's own layout: a file of COCO's form that names each image's species."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virtex.data.checks import Problems, paused_collection, quoted
from virtex.data.example import Example, Source
from virtex.data.packed import PackedStrings
from virtex.data.sources.coco_file import CocoFile
from virtex.data.sources.coco_images import positions_of, read_images
from virtex.data.sources.coco_instances import read_categories, read_labels
from virtex.errors import DataError, listing, raise_all

YEAR = "2018"


class InaturalistSource(Source):
    """root/{split}.json, with the images below root; each image has one label.

    Args:
        root: The folder of train2018.json and train_val2018.
        split: As in the files: val2018. Where there is no such file, 2018 is appended.

    Raises:
        DataError: Everything that is wrong with the data.
    """

    @paused_collection()
    def __init__(self, root: Path, *, split: str) -> None:
        problems = Problems(f"iNaturalist data in {root} (split {split})")
        path = _annotation_path(root, split, problems)
        self.root, self.split = root, path.stem
        file = CocoFile(path, problems)
        self._sha256 = file.sha256
        ids, self._names = read_images(file, root, problems)
        self._image_ids = PackedStrings(ids)
        categories = read_categories(file)
        self.categories = tuple(categories.values())
        self._labels = _read_image_labels(file, ids, categories)
        problems.check()

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, index: int) -> Example:
        image_id, path = self._image_ids[index], self.root / self._names[index]
        return Example(image_id=image_id, image=path, labels=self.labels(index))

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
    """The file of a split, or that of `split` with 2018 appended; None where there is neither."""
    paths = (root / f"{name}.json" for name in (split, split + YEAR))
    return next((path for path in paths if path.is_file()), None)


@paused_collection()
def check_same_categories(train: InaturalistSource, val_path: Path) -> None:
    """See that the validation file has the same categories, so that a label means the same in both.

    Raises:
        DataError: Names the categories that only one has.
    """
    problems = Problems(f"the categories of {val_path}")
    val = tuple(read_categories(CocoFile(val_path, problems)).values())
    problems.check()
    if val == train.categories:
        return
    train_path = find_annotations(train.root, train.split)
    ours, theirs = set(train.categories), set(val)
    differences = [
        f"only in {path}: {len(names):,} ({listing([quoted(name) for name in sorted(names)])})"
        for path, names in ((train_path, ours - theirs), (val_path, theirs - ours))
        if names
    ]
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
        problems.add(
            f"{root} must hold {split}.json or {split}{YEAR}.json but holds "
            f"{listing(found) or 'no such file'}. Name the folder with --data.root, and the file "
            "without .json with --data.train_split or --data.val_split."
        )
        problems.check()
    assert path is not None, "a missing file is a problem"
    return path


def _read_image_labels(
    file: CocoFile, ids: list[str], categories: dict[int, str]
) -> NDArray[np.int32]:
    """(N,) the one label of each image; what is amiss is noted."""
    positions = positions_of(ids)
    rows = list(file.annotations(positions))
    images = np.asarray([position for position, _ in rows], np.int64)
    labels = np.zeros(len(positions), np.int32)
    labels[images] = read_labels(file, rows, categories)
    counts = np.bincount(images, minlength=len(positions))
    unique = list(positions)
    without = [unique[place] for place in np.flatnonzero(counts == 0)]
    several = [unique[place] for place in np.flatnonzero(counts > 1)]
    file.add_all("images without a category", without, "Annotate or remove them.")
    file.add_all("images with several annotations", several, "Leave one for each image.")
    return labels
