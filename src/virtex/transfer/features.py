"""Pooled features of all images of a source, from a backbone that is not trained any more."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from torch import Tensor

from virtex import distributed, files
from virtex.data.example import Example, Source, Subset
from virtex.data.loader import LoaderConfig, validation_batches
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import DataError
from virtex.models.backbone import Backbone
from virtex.models.state_dict import state_digest
from virtex.progress import ProgressBar
from virtex.transfer.protocol import digest

CPU = torch.device("cpu")
CHUNK = 20_000
"""Images whose features are written together: what a cut command loses at most."""
LAYOUT = 3
"""Raise it where the same key would come to mean other features."""


@dataclass(frozen=True)
class Extraction:
    """How images become features."""

    image_size: int = 224
    """Side of the centre crop; the short side is resized to image_size * 256 / 224 before it."""
    precision: Precision = "fp32"
    batch_size: int = 64
    num_workers: int = 2
    device: torch.device = CPU
    bad_image_limit: float = 0.01
    """More bad images than this share are refused."""
    cache: Path | None = None
    """Folder that keeps features; null keeps none."""

    def settings(self) -> dict[str, Any]:
        """What may change the features, as plain values."""
        return {"image_size": self.image_size, "precision": self.precision}


class Features(NamedTuple):
    """Pooled features of the images of a source that could be read, and what is in the images."""

    values: NDArray[np.float32]
    """(N, C)"""
    indices: NDArray[np.int64]
    """(N,) which example of the source each row belongs to; rising."""
    labels: NDArray[np.int64]
    """(M, 2) pairs of example and class: the classes that are present."""
    ignored_labels: NDArray[np.int64]
    """Like `labels`: the classes of which nobody knows."""

    def select(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and classes of some pairs of example and class."""
        return np.searchsorted(self.indices, pairs[:, 0]), pairs[:, 1]


TABLES = Features._fields
NO_PAIRS = np.zeros((0, 2), np.int64)
NOTHING = Features(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), NO_PAIRS, NO_PAIRS)


def extract_features(
    backbone: Backbone, source: Source, extraction: Extraction, *, name: str = "images"
) -> Features:
    """The backbone's globally pooled grid for each image of a source, in its order.

    An image that cannot be read has no row, and `indices` says so; the loader refuses data where
    too many are bad. The backbone itself stays as it is: a copy runs, in eval mode. Processes share
    the work; the main one gets the features, the others no rows.

    Args:
        name: What the progress bar calls the images.

    Raises:
        DataError: Too many bad images.
    """
    spans = [
        range(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)
    ]
    folder = extraction.cache and extraction.cache / _key(backbone, source, extraction)
    kept: list[Features | None] = [None] * len(spans)
    if folder and distributed.is_main():
        kept = [_load(_chunk_path(folder, span)) for span in spans]
    missing = distributed.gather_objects([chunk is None for chunk in kept])[0]
    chunks = []
    run = _Runner(backbone, source, extraction, name)
    with run.progress:
        for span, chunk, is_missing in zip(spans, kept, missing, strict=True):  # type: ignore[call-overload]
            chunks.append(run(span) if is_missing else chunk)
            if is_missing and folder and distributed.is_main():
                _save(chunks[-1], _chunk_path(folder, span))
    if not distributed.is_main():
        return NOTHING
    features = Features(*(np.concatenate(tables) for tables in zip(*chunks, strict=True)))
    if not len(features.indices):
        raise DataError(f"none of the {len(source)} {name} can be read.")
    return features


def backbone_digest(backbone: Backbone) -> str:
    """The same for two backbones exactly if architecture, weights and statistics are."""
    name, options = backbone.config.name.partition(".")[0], backbone.config.options
    return state_digest(backbone.state_dict(), identity=digest([name, options]).encode())


class _Runner:
    """Images of a span of the source to features, this process doing its share; shows progress."""

    def __init__(
        self, backbone: Backbone, source: Source, extraction: Extraction, name: str
    ) -> None:
        self.source, self.extraction = source, extraction
        self.backbone = copy.deepcopy(backbone).eval().requires_grad_(False)
        self.backbone.to(extraction.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.progress = ProgressBar(f"features of {name}", len(source))

    def __call__(self, span: range) -> Features:
        nothing = NOTHING._replace(values=np.zeros((0, self.backbone.num_channels), np.float32))
        own = [{key: torch.from_numpy(table) for key, table in nothing._asdict().items()}]
        for batch in self._batches(span):
            own.append({"values": self._forward(batch.pop("image")), **batch})
            self.progress.reach(int(batch["indices"][-1]) + 1)
        parts: list[Any] = distributed.gather_on_main(
            {key: torch.cat([part[key] for part in own]).numpy() for key in TABLES}
        )
        if not parts:
            return NOTHING
        tables = {key: np.concatenate([part[key] for part in parts]) for key in TABLES}
        order = np.argsort(tables["indices"], kind="stable")
        tables["values"], tables["indices"] = tables["values"][order], tables["indices"][order]
        return Features(**tables)

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Tensor:
        device = self.extraction.device
        images = normalize(images.to(device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.extraction.precision, device):
            grid = self.backbone(images)  # (B, C, h, w)
        return grid.float().mean((2, 3)).cpu()  # (B, C)

    def _batches(self, span: range) -> Iterator[dict[str, Tensor]]:
        config = self.extraction
        return validation_batches(
            _Numbered(self.source, span),
            _EncodeImage(ValidationTransform(ImageConfig(size=config.image_size))),
            _collate,
            batch_size=config.batch_size,
            share=distributed.share(),
            config=LoaderConfig(
                num_workers=config.num_workers, bad_image_limit=config.bad_image_limit
            ),
        )


@dataclass(frozen=True)
class _EncodeImage:
    """An image as validation sees it, which one it is, and what is in it.

    The labels come along because reading an example twice may be slow: scenes are drawn each time.
    """

    transform: ValidationTransform

    def __call__(self, example: Example, generator: np.random.Generator) -> dict[str, Tensor]:
        del generator
        index = int(example.image_id)
        return {
            "image": self.transform(example),
            "indices": torch.tensor([index]),
            "labels": _pairs(index, example.labels),
            "ignored_labels": _pairs(index, example.ignored_labels),
        }


def _pairs(index: int, labels: tuple[int, ...]) -> Tensor:
    """(M, 2) the index beside each label."""
    return torch.tensor([(index, label) for label in labels], dtype=torch.int64).reshape(-1, 2)


def _collate(encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    images = torch.stack([item["image"] for item in encoded])  # (B, 3, H, W)
    rest = (name for name in TABLES if name != "values")
    return {"image": images, **{name: torch.cat([item[name] for item in encoded]) for name in rest}}


@dataclass(frozen=True)
class _Numbered(Source):
    """A span of a source; an image's id is its position, so that a batch knows what it holds."""

    source: Source
    span: range

    def __len__(self) -> int:
        return len(self.span)

    def __getitem__(self, index: int) -> Example:
        place = self.span[index]
        return replace(self.source[place], image_id=str(place))

    def identity(self) -> dict[str, str | int]:
        return self.source.identity()


def _key(backbone: Backbone, source: Source, extraction: Extraction) -> str:
    """Names the features by everything that they depend on."""
    parts = [backbone_digest(backbone), data_identity(source), extraction.settings()]
    return digest([LAYOUT, *parts])


def data_identity(source: Source) -> Any:
    """A source's identity; of a subset, which examples it has, not just how many."""
    if isinstance(source, Subset):
        return [data_identity(source.source), digest([int(index) for index in source.indices])]
    return source.identity()


def _chunk_path(folder: Path, span: range) -> Path:
    return folder / f"{span.start:09}.safetensors"


def _load(path: Path) -> Features | None:
    """Features saved before; none where the file is missing or cut short."""
    try:
        with safe_open(path, framework="numpy") as file:
            return Features(*(file.get_tensor(name) for name in TABLES))
    except (FileNotFoundError, SafetensorError):
        return None


def _save(features: Features, path: Path) -> None:
    tables = {name: np.ascontiguousarray(table) for name, table in features._asdict().items()}
    files.write(path, to_safetensors(tables))
