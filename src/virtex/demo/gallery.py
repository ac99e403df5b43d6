"""Images that a demo shows: examples to choose from, and a gallery to search."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virtex.data.image_files import IMAGE_SUFFIXES, images_below
from virtex.data.images import BadImageError
from virtex.demo.uploaded_image import encode, read_image, thumbnail
from virtex.errors import ConfigError
from virtex.predict.predictor import Predictor
from virtex.predict.results import Gallery

log = logging.getLogger("virtex")
Item = TypeVar("Item")

MAX_SEARCHED = 100
"""Largest number of images in a gallery; of more, a subset is taken at even distances."""
NUM_EXAMPLES = 8
THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class DemoGallery:
    """Images of the demo, and their features."""

    paths: tuple[Path, ...]
    thumbnails: tuple[bytes, ...]
    """JPEG files."""
    encoded: Gallery | None
    """The images with their features, for searches; None if there are no images."""

    @property
    def examples(self) -> list[int]:
        """Indices of the images that are shown as examples."""
        return spread(range(len(self.paths)), NUM_EXAMPLES)


def find_images(init: str, folder: Path | None) -> list[Path]:
    """Return the images in `folder`, or by default those that lie beside the run `init`.

    Raises:
        ConfigError: `folder` holds no images.
    """
    if folder is not None:
        images, passed_over = images_below(folder)
        passed_over.log(folder)
        if not images:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ConfigError(f"--gallery {folder} holds no images ({kinds})")
        return [Path(path) for path in images]
    run = Path(init).absolute()
    if run.is_file():
        run = run.parent.parent if run.parent.name == "checkpoints" else run.parent
    return _kept_images(run.parent / "scenes" / "val2017") or _kept_images(run / "samples")


def open_gallery(predictor: Predictor, paths: Sequence[Path]) -> DemoGallery:
    """Return a gallery of images; those that cannot be read are reported and left out."""
    chosen = spread(paths, MAX_SEARCHED)
    if len(chosen) < len(paths):
        log.info("gallery: %d of %d images, at even distances", len(chosen), len(paths))
    thumbnails = {}
    for path in chosen:
        try:
            pixels = read_image(path, min_side=THUMBNAIL_SIDE)
        except BadImageError as error:
            log.warning("left out: %s", error)
        else:
            thumbnails[path] = encode(thumbnail(pixels, side=THUMBNAIL_SIDE), "JPEG")
    readable = list(thumbnails)
    encoded = predictor.gallery(readable) if readable else None
    return DemoGallery(tuple(readable), tuple(thumbnails.values()), encoded)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` of the items, at even distances."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _kept_images(folder: Path) -> list[Path]:
    return [Path(path) for path in images_below(folder)[0]] if folder.is_dir() else []
