"""Names of VOC's splits: trainval, or with years 2007_trainval+2012_trainval."""

import re
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "val", "trainval", "test")
DEFAULT_YEAR = "2007"


class YearSplit(NamedTuple):
    """A split of one year's images."""

    year: str | None
    """Year of the images; None for that of the folder, or else 2007."""
    name: str

    def __str__(self) -> str:
        return self.name if self.year is None else f"{self.year}_{self.name}"


def parse_splits(text: str) -> tuple[YearSplit, ...]:
    """Return the splits in a text that joins them with +, each with an optional year."""
    found = (re.fullmatch(r"(?:(\d{4})_)?(.*)", part, re.DOTALL) for part in text.split("+"))
    return tuple(YearSplit(*match.groups()) for match in found if match)


def voc_folder(root: Path, year: str | None) -> Path:
    """Return the folder with the year's ImageSets, at or below `root`, whether it exists or not."""
    name = f"VOC{year or DEFAULT_YEAR}"
    folders = [root / name, root / "VOCdevkit" / name]
    if year is None or root.name == name:
        folders.insert(0, root)
    fallback = root if year is None else root / name
    return next((one for one in folders if (one / "ImageSets").is_dir()), fallback)


def split_list(root: Path, part: YearSplit) -> Path:
    """Return the file that lists the images of a split."""
    return voc_folder(root, part.year) / "ImageSets" / "Main" / f"{part.name}.txt"


def has_split(root: Path, split: str) -> bool:
    """Return whether all parts of a split exist."""
    return all(split_list(root, part).is_file() for part in parse_splits(split))
