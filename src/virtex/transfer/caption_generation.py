"""Generated captions of all images of a source, cached in a file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from virtex import distributed, files
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig
from virtex.data.transforms import ImageConfig
from virtex.engine.run import Precision
from virtex.errors import DataError
from virtex.models.decoding import DecodingConfig
from virtex.predict.predictor import Predictor
from virtex.predict.results import Writing, check_captions
from virtex.progress import tracked
from virtex.transfer.features import pixels_identity
from virtex.transfer.image_batches import image_batches
from virtex.transfer.protocol import digest


class GeneratedCaption(NamedTuple):
    """A caption of an image, and its log-likelihood under the model that wrote it."""

    caption: str
    log_likelihood: float


@dataclass(frozen=True)
class Generation:
    """Options of caption generation."""

    decoding: DecodingConfig
    image: ImageConfig
    precision: Precision = "fp32"
    seed: int = 0
    """Random seed of nucleus sampling."""
    batch_size: int = 64
    """Images at once, over all processes."""
    num_workers: int = 2

    def settings(self) -> dict[str, Any]:
        """Return what may change the captions, except for the seed, as plain values."""
        return {
            "image_size": self.image.size,
            "validation_short_side": self.image.validation_short_side,
            "decoding": asdict(self.decoding),
            "precision": self.precision,
        }


def captions_of(
    source: Source, predictor: Predictor, generation: Generation, *, folder: Path, model: Any
) -> dict[str, GeneratedCaption]:
    """Return the caption of each readable image, by image id, in the source's order.

    Every process gets all captions. They are cached in a file, from which a second call reads them.

    Args:
        folder: Folder of the cache, `captions/KEY.json` in COCO's results layout.
        model: Plain values that identify the model, as part of the key.

    Raises:
        DataError: Too many bad images, or a damaged cache.
        CheckpointError: A likelihood is NaN; nothing is cached then.
    """
    key = digest([generation.settings(), generation.seed, model, *pixels_identity(source)])
    path = folder / "captions" / f"{key}.json"
    captions = _read(path) if path.is_file() else None
    found = distributed.gather_objects(captions is not None)
    if captions is not None and all(found):  # not all do on separate file systems
        return captions
    captions = generate(source, predictor, generation)
    if distributed.is_main():
        _write(captions, path)
    return captions


def generate(
    source: Source, predictor: Predictor, generation: Generation
) -> dict[str, GeneratedCaption]:
    """Return what `captions_of` does, without a cache."""
    own: dict[int, GeneratedCaption] = {}
    writer = Predictor(
        predictor.captioner,
        predictor.tokenizer,
        generation.image,
        device=predictor.device,
        precision=generation.precision,
    )
    writing = Writing(generation.decoding, seed=generation.seed)
    batches = image_batches(
        source,
        generation.image,
        batch_size=generation.batch_size,
        loader=LoaderConfig(num_workers=generation.num_workers),
    )
    for batch in tracked(batches, "captions", len(source), each=generation.batch_size):
        indices = batch["index"].tolist()
        written = writer.write_captions(batch["image"], indices, writing)
        check_captions(written)
        own |= {
            index: GeneratedCaption(best.text, best.log_likelihood)
            for index, (best,) in zip(indices, written, strict=True)
        }
    captions = {k: one for part in distributed.gather_objects(own) for k, one in part.items()}
    if not captions:
        raise DataError(f"none of the {len(source)} images can be read.")
    return {source[index].image_id: captions[index] for index in sorted(captions)}


def _read(path: Path) -> dict[str, GeneratedCaption]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or not rows:
            raise ValueError("no list of captions")
        captions = dict(map(_caption_of, rows))
        if len(captions) < len(rows):
            raise ValueError("an image occurs twice")
        return captions
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} does not hold captions ({error}). Remove it, and they are generated again."
        ) from error


def _caption_of(row: object) -> tuple[str, GeneratedCaption]:
    """Return the image id and caption of a row.

    Raises:
        ValueError: It has no image id, text or likelihood.
    """
    match row:
        case {
            "image_id": int() | str() as name,
            "caption": str(text),
            "log_likelihood": float() | int() as likelihood,
        } if not isinstance(name, bool) and likelihood < math.inf:  # which NaN is not
            return str(name), GeneratedCaption(text, likelihood)
    raise ValueError(f"no caption: {json.dumps(row)[:200]}")


def _write(captions: Mapping[str, GeneratedCaption], path: Path) -> None:
    """Write captions in COCO's results layout, atomically."""
    rows = [
        {"image_id": int(name) if _is_number(name) else name, **written._asdict()}
        for name, written in captions.items()
    ]
    files.write(path, json.dumps(rows, indent=0) + "\n")


def _is_number(image_id: str) -> bool:
    """Return whether an id is an integer, as COCO's are, that is read back unchanged."""
    return image_id.isascii() and image_id.isdecimal() and str(int(image_id)) == image_id
