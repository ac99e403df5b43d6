"""Karpathy's file and Flickr8k's lists, with images, for the tests of sources."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.data.sources.layouts import jpeg, write

SPLITS = ("train", "train", "restval", "val", "test")
FLICKR8K = """1000_a.jpg#0\tA child in a pink dress .
1000_a.jpg#1\tA girl , on stairs .
1001_b.jpg#0\tA black dog
1002_c.jpg#0\tTwo dogs #2
"""
KAGGLE = """image,caption
1000_a.jpg,A child in a pink dress .
1000_a.jpg,"A girl , on stairs ."
1001_b.jpg,A black dog
1002_c.jpg,Two dogs #2
"""
FLICKR30K = """image_name| comment_number| comment
1000_a.jpg| 0| A child in a pink dress .
1000_a.jpg| 1   A girl , on stairs .
1001_b.jpg| 0| A black dog
1002_c.jpg| 0| Two dogs #2
"""
CAPTIONS = {
    "1000_a.jpg": ("A child in a pink dress .", "A girl , on stairs ."),
    "1001_b.jpg": ("A black dog",),
    "1002_c.jpg": ("Two dogs #2",),
}


def write_karpathy(
    root: Path, *, name: str = "dataset_flickr8k.json", images: str = "images", filepath: str = ""
) -> Path:
    """Write one image of each of SPLITS, and their file; return its path."""
    rows = []
    for number, split in enumerate(SPLITS):
        file_name = f"{number}.jpg"
        write(root / images / filepath / file_name, jpeg(number))
        row = {"filename": file_name, "split": split, "imgid": number}
        row["sentences"] = [
            {"raw": f"{text} {number}.", "tokens": [text]} for text in ("A dog", "One")
        ]
        rows.append({"filepath": filepath, **row} if filepath else row)
    return write(root / name, json.dumps({"images": rows, "dataset": "x"}))


def write_flickr(
    root: Path,
    text: str = FLICKR8K,
    *,
    name: str = "Flickr8k.token.txt",
    images: str = "Flicker8k_Dataset",
    lists: Sequence[str] = (),
) -> Path:
    """Write three images, a list of captions, and split lists of an image each; return the list."""
    for value, file_name in enumerate(CAPTIONS):
        write(root / images / file_name, jpeg(value))
    for list_name, file_name in zip(lists, CAPTIONS, strict=False):
        write(root / list_name, f"{file_name}\n")
    return write(root / name, text)
