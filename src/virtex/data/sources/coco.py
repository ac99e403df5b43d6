"""COCO's captions and instances, and other data sets in COCO's layout."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from virtex.data.checks import Problems, is_caption, paused_collection, quoted
from virtex.data.example import Example, ImageFile, Source
from virtex.data.missing_captions import Missing, skip_within_limit, skipped_identity
from virtex.data.packed import PackedLists
from virtex.data.source_options import BAD_OBJECT_LIMIT, MISSING_CAPTION_LIMIT
from virtex.data.sources.coco_file import CocoFile, kinds_of
from virtex.data.sources.coco_images import read_images
from virtex.data.sources.coco_instances import Instances, read_instances
from virtex.data.sources.coco_location import annotation_files, folder_of_images
from virtex.errors import listing

log = logging.getLogger("virtex")


class CocoSource(Source):
    """The images in root/{split}, with root/annotations/{captions,instances}_{split}.json.

    `root` may also be one annotation file; the images are then searched near it.

    Images come in the order of the file. Without captions and instances, either of the two files or
    image_info_{split}.json lists them.

    Args:
        split: Name of the split in the files (val2017), where 2017 may be left out.
        with_captions: Read captions, and skip images without one.
        with_instances: Read labels, boxes, masks, crowd and areas, which an image may lack.
        with_masks: Require a mask of each object.
        bad_object_limit: See `SourceConfig`.
        missing_caption_limit: See `SourceConfig`.
        image_root: Folder of the images, or of the folder of the split's name that holds them.
    """

    @paused_collection()
    def __init__(
        self,
        root: Path,
        *,
        split: str,
        with_captions: bool = True,
        with_instances: bool = False,
        with_masks: bool = False,
        bad_object_limit: float = BAD_OBJECT_LIMIT,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
        image_root: Path | None = None,
    ) -> None:
        problems = Problems(f"COCO data in {root} (split {split})")
        kinds = kinds_of(with_captions=with_captions, with_instances=with_instances)
        self.root = root
        self.split, paths = annotation_files(root, split, kinds, problems)
        opened = {path: CocoFile(path, problems) for path in set(paths.values())}
        files = {kind: opened[path] for kind, path in paths.items()}
        self._sha256 = {f"{kind}_sha256": file.sha256 for kind, file in files.items()}
        first = files[next(iter(paths))]
        folder = folder_of_images(root, self.split, image_root, first, problems)
        self._images = read_images(first, folder)
        indices = self._images.indices()
        self._captions: PackedLists | None = None
        self._instances: Instances | None = None
        self._kept = np.arange(len(self._images))
        if with_captions:
            captions = _read_captions(files.pop("captions"), indices, missing_caption_limit)
            self._captions = PackedLists(captions)
            self._kept = np.flatnonzero([bool(texts) for texts in captions])
        if with_instances:
            instances = files.pop("instances")
            self._instances = read_instances(
                instances,
                indices,
                with_masks=with_masks,
                bad_object_limit=bad_object_limit,
                listed_by=first.name if instances is not first else None,
            )
            self.categories = self._instances.categories
        problems.check()
        if with_captions and with_instances:
            _log_unlisted(instances, first.name, indices)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        captions, index = self.captions(index), int(self._kept[index])
        example = replace(self._images[index], captions=captions)
        return example if self._instances is None else self._instances.add_to(example, index)

    def image_file(self, index: int) -> ImageFile:
        return self._images.file(int(self._kept[index]))

    def captions(self, index: int) -> tuple[str, ...]:
        return () if self._captions is None else self._captions[int(self._kept[index])]

    def labels(self, index: int) -> tuple[int, ...]:
        if self._instances is None:
            return ()
        return self._instances.image_labels[int(self._kept[index])]

    def identity(self) -> dict[str, str | int]:
        counts: dict[str, str | int] = {"images": len(self)}
        if self._captions is not None:
            counts["captions"] = len(self._captions.strings)
        counts |= skipped_identity(len(self._images) - len(self))
        if self._instances is not None:
            counts |= self._instances.identity()
        origin = {"source": "coco", "root": str(self.root), "split": self.split}
        if self._images.folder != self.root / self.split:
            origin["image_root"] = str(self._images.folder)
        return {**origin, **counts, **self._sha256}


def _log_unlisted(file: CocoFile, captions_name: str, indices: dict[str, int]) -> None:
    """Log the images that the file of instances, or that of captions, does not list."""
    listed = file.image_ids()
    for ids, only_in, effect in (
        ([one for one in indices if one not in listed], captions_name, "count as without objects"),
        (sorted(listed - indices.keys()), file.name, "have no captions, and are left out"),
    ):
        if ids:
            log.warning(
                "%s of the images in %s and %s are listed by %s alone (%s): they %s",
                f"{len(ids):,}", captions_name, file.name, only_in,
                listing([quoted(one) for one in ids]), effect,
            )  # fmt: skip


def _read_captions(file: CocoFile, indices: dict[str, int], limit: float) -> list[list[str]]:
    """Return the captions of all images, in the order of the file, without those that are empty."""
    captions: list[list[str]] = [[] for _ in indices]
    blank, num_captions, is_listed = [], 0, [False] * len(indices)
    for index, row in file.annotations(indices):
        caption = row.get("caption")
        num_captions, is_listed[index] = num_captions + 1, True
        if is_caption(caption):
            captions[index].append(caption)
        else:
            blank.append(f"annotation {row.get('id')} of image {row['image_id']}")
    without = [image_id for image_id, index in indices.items() if not is_listed[index]]
    remedy = "Write captions or remove the images."
    blanks = Missing(
        f"{file.name}: captions that are empty or not text", blank, "Write or remove them."
    )
    withouts = Missing(f"{file.name}: images without a caption", without, remedy)
    skip = partial(skip_within_limit, limit=limit, problems=file.problems)
    skip([blanks], total=num_captions, kind="annotations")
    skip([withouts], total=len(indices), kind="images")
    return captions
