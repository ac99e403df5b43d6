"""Class folders in ImageNet's layout: root/<class>/*.jpg."""

from pathlib import Path

import numpy as np

from virtex.data.checks import Problems, only_in_one, sha256_of_strings
from virtex.data.example import Example, ImageFile, Source
from virtex.data.image_files import PassedOver, is_image, subfolders, walk
from virtex.data.packed import PackedStrings
from virtex.errors import DataError, raise_all


class ClassesSource(Source):
    """Images whose label is the folder in `root` (of one split) that holds them, at any depth."""

    def __init__(self, root: Path) -> None:
        problems = Problems(f"the folder of class folders {root}")
        if not root.is_dir():
            problems.fail("It is not a folder. Name it with --data.root.")
        self.root = root
        self.categories = tuple(subfolders(root))
        label_of = {name: label for label, name in enumerate(self.categories)}
        files = [prefix + name for prefix, files in walk(root) for name in files]
        names = [name for name in files if is_image(name)]
        passed_over = PassedOver()
        passed_over.add(name for name in files if not is_image(name))
        passed_over.log(root)
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

    def image_file(self, index: int) -> ImageFile:
        return ImageFile(f"{self.root}/{self.image_ids[index]}")

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
    """Raise a DataError unless both folders hold the same class folders."""
    train, val = ((root, set(subfolders(root))) for root in (train_root, val_root))
    raise_all(
        DataError,
        "training and validation images must have the same classes (rename, add or remove class "
        "folders)",
        only_in_one(train, val),
    )
