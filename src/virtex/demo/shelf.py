"""The pictures a demo begins with: examples to pick, and a gallery to search."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virtex.data.images import BadImageError
from virtex.demo.photos import data_uri, read_photo
from virtex.errors import ConfigError
from virtex.predict.predictor import Gallery, Predictor

log = logging.getLogger("virtex")
Item = TypeVar("Item")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
MOST_SEARCHED = 100
"""Pictures of a gallery; of more, so many spread evenly."""
NUM_EXAMPLES = 8
THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class Shelf:
    """Pictures on show, which the backbone has seen already."""

    paths: tuple[Path, ...]
    thumbnails: tuple[str, ...]
    """Data URIs."""
    gallery: Gallery | None
    """None where there are no pictures."""

    @property
    def examples(self) -> list[int]:
        """Places of a few, spread evenly."""
        return spread(range(len(self.paths)), NUM_EXAMPLES)


def find_pictures(init: str, folder: Path | None) -> list[Path]:
    """The pictures of `folder`; if none is given, those that lie beside the run INIT names.

    Raises:
        ConfigError: `folder` holds no pictures.
    """
    if folder is not None:
        pictures = _pictures_below(folder)
        if not pictures:
            kinds = ", ".join(sorted(SUFFIXES))
            raise ConfigError(f"--gallery {folder} holds no pictures ({kinds})")
        return pictures
    run = Path(init)
    if run.is_file():
        run = run.parent.parent if run.parent.name == "checkpoints" else run.parent
    return _pictures_below(run.parent / "scenes" / "val2017") or _pictures_below(run / "samples")


def open_shelf(predictor: Predictor, paths: Sequence[Path]) -> Shelf:
    """Show the pictures to the backbone; those that cannot be read are reported and left out."""
    chosen = spread(paths, MOST_SEARCHED)
    if len(chosen) < len(paths):
        log.info("gallery: %d of %d pictures, spread evenly", len(chosen), len(paths))
    readable, thumbnails = [], []
    for path in chosen:
        try:
            pixels = read_photo(path, min_side=THUMBNAIL_SIDE)
        except BadImageError as error:
            log.warning("left out: %s", error)
            continue
        readable.append(path)
        thumbnails.append(data_uri(pixels, side=THUMBNAIL_SIDE))
    gallery = predictor.gallery(readable) if readable else None
    return Shelf(tuple(readable), tuple(thumbnails), gallery)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, spread evenly."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
