"""A folder of pictures of where a model looked, one for each captioned image."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from virtex.predict.attention_pictures import write_strip
from virtex.predict.caption_files.growing_file import writing
from virtex.predict.predictor import Caption, Predictor

UNSAFE = re.compile(r"[^\w.-]+")
"""What does not belong in the name of a file."""
LONGEST_STEM = 80


def write_strips(
    folder: Path,
    captioned: Sequence[tuple[str, Sequence[Caption]]],
    contents: Mapping[str, Path | bytes],
    predictor: Predictor,
    *,
    batch_size: int,
) -> None:
    """Draw where the model looked at each word of each image's best caption.

    Args:
        captioned: Images and their captions, of each at least one.
        contents: The file of each image, or where it is.
        batch_size: Images looked at at once.

    Raises:
        DataError: The disk is full, or gone.
    """
    pictures = [contents[name] for name, _ in captioned]
    best = [captions[0] for _, captions in captioned]
    attentions = predictor.attend(pictures, best, batch_size=batch_size)
    for (name, _), picture, attention in zip(captioned, pictures, attentions, strict=True):
        path = strip_path(folder, name)
        with writing(path):
            write_strip(path, picture, attention, predictor.image)


def strip_path(folder: Path, name: str) -> Path:
    """Where an image's picture goes: named like it, and unlike that of any other."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem = UNSAFE.sub("_", Path(name).stem)[:LONGEST_STEM]
    return folder / f"{stem}-{digest}.png"
