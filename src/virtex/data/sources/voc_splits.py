"""The names of VOC's splits: trainval, or with years 2007_trainval+2012_trainval."""

import re
from pathlib import Path
from typing import NamedTuple

SPLITS = ("train", "val", "trainval", "test")
HALVES = frozenset({"train", "val"})
"""What trainval holds."""
DEFAULT_YEAR = "2007"


class YearSplit(NamedTuple):
    """A split of one year's images."""

    year: str | None
    """None where the name says none: that of the folder, or else 2007."""
    name: str

    def __str__(self) -> str:
        return self.name if self.year is None else f"{self.year}_{self.name}"

    def shares_images(self, other: "YearSplit") -> bool:
        """Whether images of this split are in the other one too."""
        if (self.year or DEFAULT_YEAR) != (other.year or DEFAULT_YEAR):
            return False
        return bool(self._parts & other._parts)

    @property
    def _parts(self) -> frozenset[str]:
        return HALVES if self.name == "trainval" else frozenset({self.name})


def parse_splits(text: str) -> tuple[YearSplit, ...]:
    """The splits whose names are joined by +, each perhaps with its year before it."""
    found = (re.fullmatch(r"(?:(\d{4})_)?(.*)", part, re.DOTALL) for part in text.split("+"))
    return tuple(YearSplit(*match.groups()) for match in found if match)


def overlap(first: str, second: str) -> list[tuple[YearSplit, YearSplit]]:
    """Which parts of two (joined) splits share images."""
    return [
        (one, other)
        for one in parse_splits(first)
        for other in parse_splits(second)
        if one.shares_images(other)
    ]


def voc_folder(root: Path, year: str | None) -> Path:
    """The folder that holds the year's ImageSets, at `root` or below it; where it should be."""
    name = f"VOC{year or DEFAULT_YEAR}"
    places = [root / name, root / "VOCdevkit" / name]
    if year is None or root.name == name:
        places.insert(0, root)
    fallback = root if year is None else root / name
    return next((place for place in places if (place / "ImageSets").is_dir()), fallback)


def split_list(root: Path, part: YearSplit) -> Path:
    """The file that lists the images of a split."""
    return voc_folder(root, part.year) / "ImageSets" / "Main" / f"{part.name}.txt"


def has_split(root: Path, split: str) -> bool:
    """Whether all parts of a split are there."""
    return all(split_list(root, part).is_file() for part in parse_splits(split))
