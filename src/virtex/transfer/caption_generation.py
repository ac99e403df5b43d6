"""Captions of all images of a source, by one process or several, kept in a file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from virtex import distributed, files
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig
from virtex.data.transforms import ImageConfig
from virtex.engine.run import Precision
from virtex.errors import DataError
from virtex.models.decoding import DecodingConfig
from virtex.predict.predictor import Predictor
from virtex.predict.results import Writing
from virtex.transfer.features import data_identity
from virtex.transfer.image_batches import image_batches
from virtex.transfer.protocol import digest


class GeneratedCaption(NamedTuple):
    """What a model says of an image."""

    caption: str
    log_likelihood: float


@dataclass(frozen=True)
class Generation:
    """How images become captions."""

    decoding: DecodingConfig
    image: ImageConfig
    precision: Precision = "fp32"
    seed: int = 0
    """Of nucleus sampling."""
    batch_size: int = 64
    """Over all processes."""
    num_workers: int = 2

    def settings(self) -> dict[str, Any]:
        """What may change the captions, but for the seed, as plain values."""
        return {
            "image_size": self.image.size,
            "validation_short_side": self.image.validation_short_side,
            "decoding": asdict(self.decoding),
            "precision": self.precision,
        }


def captions_of(
    source: Source, predictor: Predictor, generation: Generation, *, folder: Path, model: Any
) -> dict[str, GeneratedCaption]:
    """The caption of each image that can be read, by image id, in the source's order.

    Every process gets all of them. They are kept in the folder; a second call reads them from
    there.

    Args:
        folder: Gets a file `captions/KEY.json` in COCO's results layout.
        model: Plain values that name the model: captions of another one are not taken for its own.

    Raises:
        DataError: Too many bad images, or a file of captions that is damaged.
    """
    key = digest([generation.settings(), generation.seed, model, data_identity(source)])
    path = folder / "captions" / f"{key}.json"
    captions = _read(path) if path.is_file() else None
    found = distributed.gather_objects(captions is not None)
    if captions is not None and all(found):  # or a process sees another file system
        return captions
    captions = generate(source, predictor, generation)
    if distributed.is_main():
        _write(captions, path)
    return captions


def generate(
    source: Source, predictor: Predictor, generation: Generation
) -> dict[str, GeneratedCaption]:
    """As `captions_of`, without a file."""
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
        title="captions",
    )
    for batch in batches:
        indices = batch["index"].tolist()
        written = writer.write_captions(batch["image"], indices, writing)
        own |= {
            index: GeneratedCaption(best.text, best.log_likelihood)
            for index, (best,) in zip(indices, written, strict=True)
        }
    parts = cast(list[dict[int, GeneratedCaption]], distributed.gather_objects(own))
    captions = {index: one for part in parts for index, one in part.items()}
    if not captions:
        raise DataError(f"none of the {len(source)} images can be read.")
    return {source[index].image_id: captions[index] for index in sorted(captions)}


def _read(path: Path) -> dict[str, GeneratedCaption]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(row["image_id"]): GeneratedCaption(row["caption"], row["log_likelihood"])
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} does not hold captions ({type(error).__name__}: {error}). Remove it: they are "
            "then written again."
        ) from error


def _write(captions: Mapping[str, GeneratedCaption], path: Path) -> None:
    """Write in COCO's results layout, whole or not at all."""
    rows = [
        {"image_id": int(name) if _is_number(name) else name, **written._asdict()}
        for name, written in captions.items()
    ]
    files.write(path, json.dumps(rows, indent=0) + "\n")


def _is_number(image_id: str) -> bool:
    """Whether an id is a whole number, as COCO's are, that is read back as it was."""
    return image_id.isascii() and image_id.isdecimal() and str(int(image_id)) == image_id
