"""A folder of pictures of where a model looked, one for each captioned image."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from virtex.data.images import FORMATS
from virtex.predict.attention_pictures import write_strip
from virtex.predict.pictures import Picture
from virtex.predict.predictor import Caption, Predictor

UNSAFE = re.compile(r"[^\w.-]+")
"""What does not belong in the name of a file."""
LONGEST_STEM = 80


def write_strips(
    folder: Path,
    captioned: Sequence[tuple[str, Sequence[Caption]]],
    contents: Mapping[str, Path | bytes],
    predictor: Predictor,
) -> None:
    """Draw where the model looked at each word of each image's best caption.

    Args:
        contents: The file of each image, or where it is.
    """
    pictures = [_picture(contents[name]) for name, _ in captioned]
    best = [captions[0] for _, captions in captioned]
    attentions = predictor.attend(pictures, best)
    for (name, _), picture, attention in zip(captioned, pictures, attentions, strict=True):
        write_strip(strip_path(folder, name), picture, attention, predictor.image)


def strip_path(folder: Path, name: str) -> Path:
    """Where an image's picture goes: named like it, and unlike that of any other."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem = UNSAFE.sub("_", Path(name).stem)[:LONGEST_STEM]
    return folder / f"{stem}-{digest}.png"


def _picture(content: Path | bytes) -> Picture:
    if isinstance(content, Path):
        return content
    return Image.open(io.BytesIO(content), formats=FORMATS)
