"""Class folders, as ImageNet's are laid out: root/<class>/*.jpg."""

from pathlib import Path

import numpy as np

from virtex.data.checks import (
    Problems,
    is_image,
    quoted,
    sha256_of_strings,
    subfolders,
    walk,
)
from virtex.data.example import Example, Source
from virtex.data.packed import PackedStrings
from virtex.errors import DataError, listing, raise_all


class ClassesSource(Source):
    """Each folder in `root` is a class; its images, at any depth, have that one label.

    Args:
        root: The folder of class folders (of one split).

    Raises:
        DataError: Everything that is wrong with the data.
    """

    def __init__(self, root: Path) -> None:
        problems = Problems(f"the folder of class folders {root}")
        if not root.is_dir():
            problems.add("It is no folder. Name it with --data.root.")
            problems.check()
        self.root = root
        self.categories = tuple(subfolders(root))
        label_of = {name: label for label, name in enumerate(self.categories)}
        names = [prefix + name for prefix, files in walk(root) for name in files if is_image(name)]
        inside = [name for name in names if "/" in name]
        labels = [label_of[name.partition("/")[0]] for name in inside]
        if not self.categories:
            problems.add("There are no folders in it. Put each class's images into its own.")
        remedy = "Move each into the folder of its class."
        problems.add_all(
            "images outside any class folder", [name for name in names if "/" not in name], remedy
        )
        counts = np.bincount(labels, minlength=len(self.categories))
        empty = [self.categories[label] for label in np.flatnonzero(counts == 0)]
        problems.add_all("class folders without an image", empty, "Fill or remove them.")
        problems.check()
        self.image_ids = PackedStrings(inside)
        self._labels = np.asarray(labels, np.int32)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        name = self.image_ids[index]
        return Example(image_id=name, image=self.root / name, labels=self.labels(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return (int(self._labels[index]),)

    def identity(self) -> dict[str, str | int]:
        return {
            "source": "classes",
            "root": str(self.root),
            "images": len(self),
            "classes": len(self.categories),
            "names_sha256": sha256_of_strings(self.image_ids),
        }


def check_same_class_folders(train_root: Path, val_root: Path) -> None:
    """See that two folders hold the same class folders, so that a label means the same in both.

    Raises:
        DataError: Names the classes that only one has.
    """
    train, val = set(subfolders(train_root)), set(subfolders(val_root))
    differences = [
        f"only in {root}: {len(names)} ({listing([quoted(name) for name in sorted(names)])})"
        for root, names in ((train_root, train - val), (val_root, val - train))
        if names
    ]
    raise_all(
        DataError,
        "training and validation images must have the same classes (rename, add or remove class "
        "folders)",
        differences,
    )
