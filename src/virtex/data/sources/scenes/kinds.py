"""Kinds of object that scenes show, as `kinds.csv` lists them."""

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """Kind of object: a row of `kinds.csv`."""

    family: str
    """Supercategory, such as `animal`."""
    name: str
    canvas: tuple[float, float]
    """Width and height in the units of its drawing."""
    height: float
    """Usual height, as a share of the image's."""
    weight: float
    """Frequency relative to the other kinds that fit the same setting."""
    most: int
    """Largest number of objects of this kind in one group."""
    verb: str
    """Participle that captions use, except under water."""
    tilt: float
    """Largest rotation to either side, in degrees."""
    far: bool
    """Whether it belongs in the background."""
    patterned: bool
    """Whether it may be striped or spotted."""
    plural: str
    """Irregular plural of the name, or empty."""
    synonyms: tuple[str, ...]
    """Other nouns for one object of it."""
    colors: tuple[str, ...]
    """Colors it comes in, which captions name; empty where it always looks the same."""


def _read_kinds(path: Path) -> tuple[Kind, ...]:
    with path.open(newline="") as file:
        return tuple(_kind(row) for row in csv.DictReader(file))


def _kind(row: dict[str, str]) -> Kind:
    return Kind(
        family=row["family"],
        name=row["name"],
        canvas=(float(row["canvas_width"]), float(row["canvas_height"])),
        height=float(row["height"]),
        weight=float(row["weight"]),
        most=int(row["most"]),
        verb=row["verb"],
        tilt=float(row["tilt"]),
        far=row["far"] == "yes",
        patterned=row["patterned"] == "yes",
        plural=row["plural"],
        synonyms=tuple(filter(None, row["synonyms"].split("|"))),
        colors=tuple(filter(None, row["colors"].split("|"))),
    )


KINDS: tuple[Kind, ...] = _read_kinds(Path(__file__).with_name("kinds.csv"))
CATEGORIES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
KIND_IDS: dict[str, int] = {name: index for index, name in enumerate(CATEGORIES)}
