"""Write layouts with boxes and masks: COCO, LVIS and PASCAL VOC."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Example
from virtex.data.layouts.records import (
    Annotation,
    Record,
    Records,
    areas,
    boxes_of,
    described,
    make_folder,
    write_file,
    write_json,
)
from virtex.data.sources.scenes.scenes_source import run_lengths

_CROWD = 4
"""Least number of objects of one category that become one crowd in COCO."""
_EXHAUSTIVE = 3
"""Most objects of a category that LVIS annotates; with more it is listed as not exhaustive."""
_NEGATIVES = 5
"""Number of absent categories that LVIS lists for an image."""
_RARE, _COMMON = 10, 100
"""Most training images of LVIS's rare and common categories."""
_DIFFICULT = 0.015
"""Share of the image below which VOC marks an object as difficult."""
_TRAIN_SHARE = 0.5
"""Share of VOC's trainval that is train."""


def name_like_coco(split: str, number: int, example: Example, categories: Sequence[str]) -> str:
    return f"{split}2017/{number:012d}.jpg"


def name_like_voc(split: str, number: int, example: Example, categories: Sequence[str]) -> str:
    return f"VOCdevkit/VOC2007/JPEGImages/{_voc_id(number)}.jpg"


def finish_coco(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Write the captions and the instances of each split."""
    folder = root / "annotations"
    for split, split_records in records.items():
        images = [_image(record) for record in split_records]
        captions = [
            {"image_id": record.number, "caption": caption}
            for record in split_records
            for caption in record.example.captions
        ]
        instances = [row for record in split_records for row in _with_crowds(_instances(record))]
        write_json(folder / f"captions_{split}2017.json", images=images, annotations=captions)
        write_json(
            folder / f"instances_{split}2017.json",
            images=images,
            annotations=instances,
            categories=described(categories, first_id=1),
        )


def finish_lvis(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Write LVIS v1: a long tail of categories, and for each image some that it lacks."""
    long_tail = _lvis_categories(records.get("train") or next(iter(records.values())), categories)
    for split, split_records in records.items():
        images, annotations = [], []
        for record in split_records:
            kept, incomplete = _first_of_each(_instances(record))
            annotations += [{k: v for k, v in row.items() if k != "iscrowd"} for row in kept]
            images.append({
                **_image(record),
                "coco_url": f"http://images.cocodataset.org/{record.file}",
                "neg_category_ids": _absent(record, len(categories)),
                "not_exhaustive_category_ids": incomplete,
            })  # fmt: skip
        path = root / "annotations" / f"lvis_v1_{split}.json"
        write_json(path, images=images, annotations=annotations, categories=long_tail)


def _lvis_categories(train: list[Record], categories: Sequence[str]) -> list[Annotation]:
    frequency = Counter(label for record in train for label in set(record.example.box_labels))
    objects = Counter(label for record in train for label in record.example.box_labels)
    return [
        {**category, "synset": f"{category['name'].replace(' ', '_')}.n.01",
         "synonyms": [category["name"]], "def": category["name"],
         "frequency": _frequency(frequency[label]), "image_count": frequency[label],
         "instance_count": objects[label]}
        for label, category in enumerate(described(categories, first_id=1))
    ]  # fmt: skip


def _image(record: Record) -> Annotation:
    return {"id": record.number, "file_name": Path(record.file).name, "width": record.width,
            "height": record.height}  # fmt: skip


def _instances(record: Record) -> list[Annotation]:
    """Return the objects of an image, each with category, box, mask and area."""
    example = record.example
    boxes = boxes_of(example)
    crowd = example.crowd or (False,) * len(boxes)
    rows = []
    for index, (label, area) in enumerate(zip(example.box_labels, areas(example), strict=True)):
        x1, y1, x2, y2 = boxes[index].tolist()
        row = {
            "image_id": record.number,
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": area,
            "iscrowd": int(crowd[index]),
        }
        if example.masks:
            row["segmentation"] = example.masks[index]
        rows.append(row)
    return rows


def _with_crowds(rows: list[Annotation]) -> list[Annotation]:
    """Replace many objects of one category by one crowd, where their masks are run lengths."""
    number_of = Counter(row["category_id"] for row in rows)
    crowded = {category for category, number in number_of.items() if number >= _CROWD}
    kept = [row for row in rows if row["category_id"] not in crowded]
    for category in sorted(crowded):
        members = [row for row in rows if row["category_id"] == category]
        plain = all(
            isinstance(row.get("segmentation"), dict) and not row["iscrowd"] for row in members
        )
        kept += [_crowd_of(members)] if plain else members
    return kept


def _crowd_of(members: list[Annotation]) -> Annotation:
    mask = np.logical_or.reduce([_mask_of(row["segmentation"]) for row in members])
    corners = np.array([row["bbox"] for row in members])
    low, high = corners[:, :2].min(axis=0), (corners[:, :2] + corners[:, 2:]).max(axis=0)
    return {
        **members[0],
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "area": float(mask.sum()),
        "iscrowd": 1,
        "segmentation": run_lengths(mask),
    }


def _mask_of(segmentation: dict[str, list[int]]) -> NDArray[np.bool_]:
    values = np.arange(len(segmentation["counts"])) % 2 == 1
    height, width = segmentation["size"]
    return np.repeat(values, segmentation["counts"]).reshape((height, width), order="F")


def _first_of_each(rows: list[Annotation]) -> tuple[list[Annotation], list[int]]:
    """Return at most `_EXHAUSTIVE` objects a category, and the categories that have more."""
    seen: Counter[int] = Counter()
    kept = []
    for row in rows:
        seen[row["category_id"]] += 1
        if seen[row["category_id"]] <= _EXHAUSTIVE:
            kept.append(row)
    return kept, sorted(category for category, number in seen.items() if number > _EXHAUSTIVE)


def _absent(record: Record, num_categories: int) -> list[int]:
    """Return some categories that the image lacks, other ones for each image."""
    absent = sorted(
        set(range(1, num_categories + 1)) - {label + 1 for label in record.example.labels}
    )
    start = record.number * 7
    return sorted({absent[(start + step * 11) % len(absent)] for step in range(_NEGATIVES)})


def _frequency(image_count: int) -> str:
    return "r" if image_count <= _RARE else "c" if image_count <= _COMMON else "f"


def finish_voc(root: Path, records: Records, categories: Sequence[str]) -> None:
    """Write an XML file for each image, and for each class and split a list of images."""
    folder = root / "VOCdevkit" / "VOC2007"
    make_folder(folder / "Annotations")
    make_folder(folder / "ImageSets" / "Main")
    names = [name.replace(" ", "") for name in categories]
    for record in (record for split_records in records.values() for record in split_records):
        path = folder / "Annotations" / f"{_voc_id(record.number)}.xml"
        write_file(path, _voc_xml(record, names))
    train, test = records.get("train", []), records.get("val", [])
    middle = round(len(train) * _TRAIN_SHARE)
    parts = {"train": train[:middle], "val": train[middle:], "trainval": train, "test": test}
    for split, part in parts.items():
        if part:
            _write_voc_lists(folder / "ImageSets" / "Main", split, part, names)


def _voc_id(number: int) -> str:
    return f"{number:07d}"


def _write_voc_lists(folder: Path, split: str, part: list[Record], names: Sequence[str]) -> None:
    write_file(folder / f"{split}.txt", "".join(f"{_voc_id(r.number)}\n" for r in part))
    marks = [_marks(record) for record in part]
    for label, name in enumerate(names):
        lines = (
            f"{_voc_id(record.number)} {its_marks.get(label, -1):2d}\n"
            for record, its_marks in zip(part, marks, strict=True)
        )
        write_file(folder / f"{name}_{split}.txt", "".join(lines))


def _difficult(record: Record) -> list[bool]:
    least = _DIFFICULT * record.width * record.height
    ignored = record.example.ignored_labels
    pairs = zip(record.example.box_labels, areas(record.example), strict=True)
    return [area < least or label in ignored for label, area in pairs]


def _marks(record: Record) -> dict[int, int]:
    """Return 1 for each class present, 0 for one present in difficult objects only."""
    marks = dict.fromkeys(record.example.labels, 0)
    marks.update(dict.fromkeys(record.example.ignored_labels, 0))
    for label, difficult in zip(record.example.box_labels, _difficult(record), strict=True):
        marks[label] = max(marks.get(label, 0), int(not difficult))
    return marks


def _voc_xml(record: Record, names: Sequence[str]) -> str:
    """Return the annotation of one image; VOC counts pixels from 1 and includes the last."""
    example = record.example
    objects = "".join(
        f"<object><name>{escape(names[label])}</name><pose>Unspecified</pose>"
        f"<truncated>0</truncated><difficult>{int(difficult)}</difficult><bndbox>"
        f"<xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin><xmax>{x2:g}</xmax><ymax>{y2:g}</ymax>"
        "</bndbox></object>"
        for label, difficult, (x1, y1, x2, y2) in zip(
            example.box_labels, _difficult(record), boxes_of(example).tolist(), strict=True
        )
    )
    return (
        f"<annotation><folder>VOC2007</folder><filename>{_voc_id(record.number)}.jpg</filename>"
        f"<size><width>{record.width}</width><height>{record.height}</height><depth>3</depth></size>"
        f"<segmented>0</segmented>{objects}</annotation>\n"
    )
