"""Karpathy's splits: dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json.

A. Karpathy and L. Fei-Fei, "Deep visual-semantic alignments for generating image descriptions",
CVPR 2015. One file lists all images with their split (train, val, test; for COCO also restval).
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from virtex.data.checks import Problems, head_of, paused_collection, read_json
from virtex.data.source_options import MISSING_CAPTION_LIMIT
from virtex.data.sources.image_folders import image_folder
from virtex.data.sources.listed_captions import ListedCaptions

PATTERN = "dataset*.json"
HEAD_BYTES = 2**16


class KarpathySource(ListedCaptions):
    """The images of one split, or of several that + joins (train+restval).

    Args:
        root: The file, or the folder that holds one.
        image_root: Folder of the images, or of COCO's train2014 and val2014; by default one beside
            the file.
        with_captions: See `ListedCaptions`.
        missing_caption_limit: See `SourceConfig`.
    """

    @paused_collection()
    def __init__(
        self,
        root: Path,
        *,
        split: str,
        image_root: Path | None = None,
        with_captions: bool = True,
        missing_caption_limit: float = MISSING_CAPTION_LIMIT,
    ) -> None:
        problems = Problems(f"Karpathy's split {split} of {root}")
        path = karpathy_file(root)
        if path is None:
            problems.fail(
                f"It is no file, nor a folder with one {PATTERN}. Name it by --data.root."
            )
        document, sha256 = read_json(path, problems)
        problems.check()
        listed = _read(document, split, problems)
        folder = image_folder(path, listed, problems, named=image_root)
        origin = {"source": "karpathy", "root": str(path), "split": split}
        super().__init__(
            listed,
            folder=folder,
            origin={**origin, "image_root": str(folder), "sha256": sha256},
            problems=problems,
            with_captions=with_captions,
            missing_caption_limit=missing_caption_limit,
        )


def karpathy_file(root: Path) -> Path | None:
    """Return the file that a root names: itself, or the only one in the folder."""
    if root.is_file():
        return root
    found = sorted(root.glob(PATTERN)) if root.is_dir() else []
    found = [path for path in found if is_karpathy_file(path)]
    return found[0] if len(found) == 1 else None


def is_karpathy_file(path: Path) -> bool:
    """Whether a file begins with images that have sentences."""
    head = head_of(path, HEAD_BYTES)
    return b'"images"' in head and b'"sentences"' in head


def has_karpathy_split(root: Path, split: str) -> bool:
    """Whether the file has an image of each part of a split, without parsing it."""
    path = karpathy_file(root)
    if path is None:
        return False
    found = set(re.findall(rb'"split": *"([^"]*)"', path.read_bytes()))
    return {part.encode() for part in split.split("+")} <= found


def _read(document: Any, split: str, problems: Problems) -> dict[str, list[object]]:
    """Return the captions of each image of a split, by its path."""
    rows = document.get("images") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        problems.fail('It has no list "images". Is it a file of Karpathy\'s splits?')
    good = [row for row in rows if _is_whole(row)]
    broken = [f"entry {index}" for index, row in enumerate(rows) if not _is_whole(row)]
    remedy = 'Each needs "filename", "split" and "sentences".'
    problems.add_all('entries of "images" that cannot be read', broken, remedy)
    parts = set(split.split("+"))
    counts = Counter(row["split"] for row in good)
    if absent := sorted(parts - counts.keys()):
        shown = ", ".join(f"{name} ({count:,})" for name, count in sorted(counts.items()))
        problems.fail(
            f"No image has the split {' or '.join(absent)}; its splits are {shown or 'none'}. Name "
            "one, or several joined by +, with --data.train_split or --data.val_split."
        )
    chosen = [row for row in good if row["split"] in parts]
    return _by_path(chosen, problems)


def _by_path(rows: Iterable[dict[str, Any]], problems: Problems) -> dict[str, list[object]]:
    listed: dict[str, list[object]] = {}
    twice = []
    for row in rows:
        name = os.path.normpath(os.path.join(row.get("filepath") or "", row["filename"]))  # noqa: PTH118
        if name in listed:
            twice.append(name)
        listed[name] = [
            one.get("raw") if isinstance(one, dict) else None for one in row["sentences"]
        ]
    problems.add_all("images listed more than once", twice, "Leave one entry for each image.")
    return listed


def _is_whole(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("filename"), str)
        and isinstance(row.get("filepath", ""), str)
        and isinstance(row.get("split"), str)
        and isinstance(row.get("sentences"), list)
    )
