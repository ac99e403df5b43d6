"""PASCAL VOC: lists of images for each class, and boxes in XML files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from virtex.data.checks import Problems, sha256_of_strings
from virtex.data.example import Example, ImageFile, Source
from virtex.data.packed import PackedStrings
from virtex.data.source_options import BAD_OBJECT_LIMIT
from virtex.data.sources.voc_annotations import VocObjects, read_objects
from virtex.data.sources.voc_lists import DIFFICULT, PRESENT, VocLists, read_lists
from virtex.data.sources.voc_splits import parse_splits
from virtex.errors import listing


class VocSource(Source):
    """VOCdevkit/VOC2007: ImageSets/Main/<class>_<split>.txt, JPEGImages, Annotations.

    A class marked 0 for an image (which has only `difficult` objects of it) is in `ignored_labels`.

    Args:
        root: The VOCdevkit, its parent folder, or a year's folder in it.
        split: train, val, trainval or test, with years if there are several or another one:
            2007_trainval+2012_trainval.
        with_boxes: Read Annotations too.
        bad_object_limit: See `SourceConfig`.
    """

    def __init__(
        self,
        root: Path,
        *,
        split: str,
        with_boxes: bool = False,
        bad_object_limit: float = BAD_OBJECT_LIMIT,
    ) -> None:
        problems = Problems(f"VOC data in {root} (split {split})")
        parts = [read_lists(root, part, problems) for part in parse_splits(split)]
        _check_together(parts, problems)
        self._folders = tuple(part.folder for part in parts)
        self.root = self._folders[0] if len(parts) == 1 else self._folders[0].parent
        self.split, self.categories = split, parts[0].categories
        sizes = [len(part.image_ids) for part in parts]
        self._folder_indices = np.repeat(np.arange(len(parts), dtype=np.int8), sizes)
        self._image_ids = PackedStrings(one for part in parts for one in part.image_ids)
        self._marks = np.concatenate([part.marks for part in parts])
        self._objects: VocObjects | None = None
        if with_boxes:
            files = [
                part.folder / "Annotations" / f"{image_id}.xml"
                for part in parts
                for image_id in part.image_ids
            ]
            self._objects = read_objects(
                files, self.categories, problems, bad_object_limit=bad_object_limit
            )
        problems.check()

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        image_id, folder = self._image_ids[index], self._folders[self._folder_indices[index]]
        example = Example(
            image_id=image_id,
            image=folder / "JPEGImages" / f"{image_id}.jpg",
            labels=self.labels(index),
            ignored_labels=tuple(np.flatnonzero(self._marks[index] == DIFFICULT).tolist()),
        )
        return example if self._objects is None else self._objects.add_to(example, index)

    def image_file(self, index: int) -> ImageFile:
        folder = self._folders[self._folder_indices[index]]
        return ImageFile(f"{folder}/JPEGImages/{self._image_ids[index]}.jpg")

    def labels(self, index: int) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self._marks[index] == PRESENT).tolist())

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
        return identity if self._objects is None else identity | self._objects.identity()


def _check_together(parts: Sequence[VocLists], problems: Problems) -> None:
    """Check that the splits of several years have the same classes and no common image."""
    first = parts[0]
    for part in parts[1:]:
        if part.categories != first.categories:
            differing = sorted(set(part.categories) ^ set(first.categories))
            problems.add(
                f"{first.folder} and {part.folder} have different classes: {listing(differing)} "
                "only in one of them. Give splits of the same classes."
            )
    counts = Counter(image_id for part in parts for image_id in dict.fromkeys(part.image_ids))
    shared = [image_id for image_id, count in counts.items() if count > 1]
    problems.add_all("images in more than one of the splits", shared, "Leave one of them out.")
    if len({part.categories for part in parts}) > 1:
        problems.check()
