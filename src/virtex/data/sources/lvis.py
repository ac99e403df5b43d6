"""LVIS v1 (Gupta et al., CVPR 2019): COCO's images with a long tail of classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from virtex.data.checks import Problems, paused_collection
from virtex.data.example import Example, ImageFile, Source
from virtex.data.source_options import BAD_OBJECT_LIMIT
from virtex.data.sources.coco_file import CocoFile, id_text
from virtex.data.sources.coco_images import read_images
from virtex.data.sources.coco_instances import (
    Instances,
    category_rows,
    read_categories,
    read_instances,
)
from virtex.data.sources.label_lists import LabelLists

FREQUENCIES = frozenset("rcf")
START = "lvis_v1_"
URL_PARTS = 2
"""Parts of a `coco_url` that are the image's path: train2017/000000000009.jpg."""


class LvisSource(Source):
    """COCO's images in root/train2017 and val2017, with root/annotations/lvis_v1_{split}.json.

    Each image is annotated for some classes only; see `Example.absent_labels` and
    `Example.incomplete_labels`.

    Args:
        split: train or val.
        with_instances: Read labels, boxes, masks and areas, which an image may lack.
        with_masks: Require a mask of each object.
        bad_object_limit: See `SourceConfig`.
    """

    @paused_collection()
    def __init__(
        self,
        root: Path,
        *,
        split: str,
        with_instances: bool = True,
        with_masks: bool = False,
        bad_object_limit: float = BAD_OBJECT_LIMIT,
    ) -> None:
        problems = Problems(f"LVIS data in {root} (split {split})")
        self.root, self.split = root, split
        _check_split(root, split, problems)
        file = CocoFile(lvis_path(root, split), problems)
        self._sha256 = file.sha256
        self._images = read_images(file, root, field="coco_url", path_of=_path_of)
        self._instances: Instances | None = None
        if with_instances:
            indices, categories = self._images.indices(), read_categories(file)
            self.frequencies = _read_frequencies(file)
            self._absent, self._incomplete = (
                _read_lists(file, field, indices, categories)
                for field in ("neg_category_ids", "not_exhaustive_category_ids")
            )
            self._instances = read_instances(
                file, indices, with_masks=with_masks, bad_object_limit=bad_object_limit
            )
            self.categories = self._instances.categories
        problems.check()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        example = self._images[index]
        if self._instances is None:
            return example
        absent, incomplete = self._absent[index], self._incomplete[index]
        example = replace(example, absent_labels=absent, incomplete_labels=incomplete)
        return self._instances.add_to(example, index)

    def image_file(self, index: int) -> ImageFile:
        return self._images.file(index)

    def labels(self, index: int) -> tuple[int, ...]:
        return () if self._instances is None else self._instances.image_labels[index]

    def identity(self) -> dict[str, str | int]:
        identity: dict[str, str | int] = {
            "source": "lvis",
            "root": str(self.root),
            "split": self.split,
            "images": len(self),
            "sha256": self._sha256,
        }
        return identity if self._instances is None else identity | self._instances.identity()


def lvis_path(root: Path, split: str) -> Path:
    """Return the path of the annotations of a split."""
    return root / "annotations" / f"{START}{split}.json"


def _check_split(root: Path, split: str, problems: Problems) -> None:
    path = lvis_path(root, split)
    if path.is_file():
        return
    found = sorted(one.name for one in path.parent.glob(f"{START}*.json"))
    problems.fail(
        f"{path} is missing; found: {', '.join(found) or 'no such file'}. Name the folder above "
        f"annotations with --data.root, and what follows {START} with --data.train_split or "
        "--data.val_split."
    )


def _path_of(url: str) -> str:
    return "/".join(url.split("/")[-URL_PARTS:])


def _read_frequencies(file: CocoFile) -> tuple[str, ...]:
    """Return r, c or f for each category, in the order of their ids."""
    rows = category_rows(file)
    found = [row.get("frequency") for row in rows]
    broken = [
        f"{row['name']}: {one}"
        for row, one in zip(rows, found, strict=True)
        if not isinstance(one, str) or one not in FREQUENCIES
    ]
    file.add_all('categories whose "frequency" is not r, c or f', broken, "Take LVIS v1's file.")
    return tuple(map(str, found))


def _read_lists(
    file: CocoFile, field: str, indices: dict[str, int], categories: dict[str, str]
) -> LabelLists:
    """Return the labels whose category ids each image lists under `field`."""
    label_of = {category_id: label for label, category_id in enumerate(categories)}
    images, labels, broken = [], [], []
    for row in file.rows("images"):
        index, ids = indices.get(id_text(row.get("id")) or ""), row.get(field)
        if index is None:
            continue
        if isinstance(ids, list) and all(id_text(one) in label_of for one in ids):
            images += [index] * len(ids)
            labels += [label_of[str(id_text(one))] for one in ids]
        else:
            broken.append(f"image {row.get('id')}: {ids}")
    remedy = "It lists ids of categories; take LVIS v1's file."
    file.add_all(f'images whose "{field}" is missing or broken', broken, remedy)
    return LabelLists.of_pairs(
        np.asarray(images, np.int64), np.asarray(labels, np.int32), num_images=len(indices)
    )
