"""Write layouts without boxes: class folders, iNaturalist, sidecar files, tar shards."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from virtex.data.example import Example, Source
from virtex.data.layouts.records import (
    CHUNK,
    Record,
    Records,
    described,
    encoded,
    make_folder,
    most_prominent,
    supercategory_of,
    write_file,
    write_json,
)
from virtex.data.shard_files import sample_files, tar_end


def folder_name(category: str) -> str:
    """Return a category as a file name."""
    return category.replace(" ", "_").replace("/", "_")


def name_by_number(split: str, number: int, example: Example, categories: Sequence[str]) -> str:
    return f"{split}/{number:09d}.jpg"


def name_by_class(split: str, number: int, example: Example, categories: Sequence[str]) -> str:
    return f"{split}/{folder_name(categories[most_prominent(example)])}/{number:09d}.jpg"


def name_like_inaturalist(
    split: str, number: int, example: Example, categories: Sequence[str]
) -> str:
    label = most_prominent(example)
    family = folder_name(supercategory_of(categories[label]))
    return f"train_val2018/{family}/{label}/{number:09d}.jpg"


def finish_webdataset(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Write nothing, since the layout is complete with its images."""


def finish_imagenet(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Remove the class folders that a split lacks, so that all splits have the same classes."""
    classes = [{path.name for path in (root / split).iterdir()} for split in records]
    common = classes[0].intersection(*classes[1:])
    for split, found in zip(records, classes, strict=True):
        for name in found - common:
            shutil.rmtree(root / split / name)


def finish_sidecar(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Write x.txt beside each x.jpg."""
    for split_records in records.values():
        for record in split_records:
            text = "".join(f"{caption}\n" for caption in record.example.captions)
            write_file((root / record.file).with_suffix(".txt"), text)


def finish_inaturalist(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Write one JSON file a split, in the form of 2018's competition."""
    for split, split_records in records.items():
        images = [
            {"id": r.number, "file_name": r.file, "width": r.width, "height": r.height,
             "license": 0, "rights_holder": ""}
            for r in split_records
        ]  # fmt: skip
        annotations = [
            {"id": r.number, "image_id": r.number, "category_id": most_prominent(r.example)}
            for r in split_records
        ]
        write_json(
            root / f"{split}2018.json",
            images=images,
            annotations=annotations,
            categories=described(categories, first_id=0),
            year=2018,
        )


def write_shard(
    root: Path, split: str, source: Source, indices: range, *, name_image: object
) -> list[Record]:
    """Write the chunk as one tar file."""
    folder = root / split
    make_folder(folder)
    shard_number = indices.start // CHUNK
    shard = bytearray()
    for index in indices:
        key = f"{shard_number:06d}{index - indices.start:04d}"
        record, image = encoded(source[index], number=index + 1, file="")
        size = {"width": record.width, "height": record.height}
        shard += sample_files(
            key,
            image,
            suffix=".jpg",
            captions=record.example.captions,
            metadata={**size, **{f"original_{side}": pixels for side, pixels in size.items()}},
        )
    write_file(folder / f"{shard_number:06d}.tar", bytes(shard + tar_end(len(shard))))
    return []
