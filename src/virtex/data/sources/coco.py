"""COCO's captions and instances, and any data set written in COCO's layout."""

from pathlib import Path

from virtex.data.checks import Problems, is_caption, paused_collection
from virtex.data.example import Example, Source
from virtex.data.packed import PackedLists, PackedStrings
from virtex.data.source_options import BAD_OBJECT_LIMIT
from virtex.data.sources.coco_file import KINDS, CocoFile, annotation_path, find_split, kinds_of
from virtex.data.sources.coco_images import positions_of, read_images
from virtex.data.sources.coco_instances import Instances, read_instances


class CocoSource(Source):
    """root/annotations/{captions,instances}_{split}.json, with the images in root/{split}.

    Images come in the order of the file. Where neither captions nor instances are asked for,
    whichever of the two files there is (or image_info_{split}.json) lists the images.

    Args:
        root: Folder that holds `annotations` and a folder of images for each split.
        split: As in the files: val2017. Where there is no such file, 2017 is appended.
        with_captions: Read captions; each image must have one.
        with_instances: Read labels, boxes, masks, crowd, areas; an image may have none.
        bad_object_limit: Share of the objects that may be bad; those are dropped.

    Raises:
        DataError: Everything that is wrong with the data.
    """

    @paused_collection()
    def __init__(
        self,
        root: Path,
        *,
        split: str,
        with_captions: bool = True,
        with_instances: bool = False,
        bad_object_limit: float = BAD_OBJECT_LIMIT,
    ) -> None:
        problems = Problems(f"COCO data in {root} (split {split})")
        kinds = kinds_of(with_captions=with_captions, with_instances=with_instances)
        self.root, self.split = root, find_split(root, split, kinds, problems)
        paths = {kind: annotation_path(root, kind, self.split) for kind in KINDS}
        kinds = kinds or [kind for kind in KINDS if paths[kind].is_file()][:1]
        files = {kind: CocoFile(paths[kind], problems) for kind in kinds}
        self._sha256 = {f"{kind}_sha256": file.sha256 for kind, file in files.items()}
        ids, self._names = read_images(files[kinds[0]], root / self.split, problems)
        self._image_ids = PackedStrings(ids)
        positions = positions_of(ids)
        self._captions: PackedLists | None = None
        self._instances: Instances | None = None
        if with_captions:
            self._captions = _read_captions(files.pop("captions"), positions)
        if with_instances:
            self._instances = read_instances(
                files.pop("instances"), positions, bad_object_limit=bad_object_limit
            )
            self.categories = self._instances.categories
        problems.check()

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        example = Example(
            image_id=self._image_ids[index],
            image=self.root / self.split / self._names[index],
            captions=self.captions(index),
        )
        return example if self._instances is None else self._instances.added_to(example, index)

    def captions(self, index: int) -> tuple[str, ...]:
        return () if self._captions is None else self._captions[index]

    def labels(self, index: int) -> tuple[int, ...]:
        return () if self._instances is None else self._instances.image_labels[index]

    def identity(self) -> dict[str, str | int]:
        counts: dict[str, str | int] = {"images": len(self)}
        if self._captions is not None:
            counts["captions"] = len(self._captions.strings)
        if self._instances is not None:
            counts |= self._instances.identity()
        place = {"source": "coco", "root": str(self.root), "split": self.split}
        return {**place, **counts, **self._sha256}


def _read_captions(file: CocoFile, positions: dict[str, int]) -> PackedLists:
    """The captions of all images, in the order of the file."""
    captions: list[list[str]] = [[] for _ in positions]
    blank = []
    for position, row in file.annotations(positions):
        caption = row.get("caption")
        captions[position].append(caption if isinstance(caption, str) else "")
        if not is_caption(caption):
            blank.append(f"annotation {row.get('id')} of image {row['image_id']}")
    file.add_all("captions that are empty or no text", blank, "Write or remove them.")
    without = [image_id for image_id, position in positions.items() if not captions[position]]
    file.add_all("images without a caption", without, "Write captions or remove the images.")
    return PackedLists(captions)
