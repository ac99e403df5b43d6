"""The images a demo begins with: examples to pick, and a gallery to search."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virtex.data.images import BadImageError
from virtex.demo.uploaded_image import encode, read_image, thumbnail
from virtex.errors import ConfigError
from virtex.predict.predictor import Gallery, Predictor

log = logging.getLogger("virtex")
Item = TypeVar("Item")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
MAX_SEARCHED = 100
"""Number of images in a gallery; of more, so many are taken, spread evenly."""
NUM_EXAMPLES = 8
THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class DemoGallery:
    """Images on show, which the backbone has seen already."""

    paths: tuple[Path, ...]
    thumbnails: tuple[bytes, ...]
    """JPEG files."""
    encoded: Gallery | None
    """The images as the predictor searches them; none if there are no images."""

    @property
    def examples(self) -> list[int]:
        """Indices of a few images, spread evenly."""
        return spread(range(len(self.paths)), NUM_EXAMPLES)


def find_images(init: str, folder: Path | None) -> list[Path]:
    """List the images of `folder`; if none is given, those that lie beside the run INIT names.

    Raises:
        ConfigError: `folder` holds no images.
    """
    if folder is not None:
        images = _images_below(folder)
        if not images:
            kinds = ", ".join(sorted(SUFFIXES))
            raise ConfigError(f"--gallery {folder} holds no images ({kinds})")
        return images
    run = Path(init)
    if run.is_file():
        run = run.parent.parent if run.parent.name == "checkpoints" else run.parent
    return _images_below(run.parent / "scenes" / "val2017") or _images_below(run / "samples")


def open_gallery(predictor: Predictor, paths: Sequence[Path]) -> DemoGallery:
    """Show the images to the backbone; those that cannot be read are reported and left out."""
    chosen = spread(paths, MAX_SEARCHED)
    if len(chosen) < len(paths):
        log.info("gallery: %d of %d images, spread evenly", len(chosen), len(paths))
    readable, thumbnails = [], []
    for path in chosen:
        try:
            pixels = read_image(path, min_side=THUMBNAIL_SIDE)
        except BadImageError as error:
            log.warning("left out: %s", error)
            continue
        readable.append(path)
        thumbnails.append(encode(thumbnail(pixels, side=THUMBNAIL_SIDE), "JPEG"))
    encoded = predictor.gallery(readable) if readable else None
    return DemoGallery(tuple(readable), tuple(thumbnails), encoded)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Choose at most `most` of the items, spread evenly."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
