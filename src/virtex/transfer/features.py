"""Pooled features of all images of a source, from a backbone that is not trained any more."""

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from virtex.data.example import Example, Source, Subset
from virtex.data.loader import LoaderConfig, validation_batches
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.engine.run import autocast
from virtex.errors import DataError, listing
from virtex.models.backbone import Backbone
from virtex.transfer.protocol import digest

CPU = torch.device("cpu")
LAYOUT = 1
"""Raise it where the same key would come to mean other features."""


@dataclass(frozen=True)
class Extraction:
    """How images become features."""

    image_size: int = 224
    """Side of the centre crop; the short side is resized to image_size * 256 / 224 before it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int = 64
    num_workers: int = 2
    device: torch.device = CPU
    cache: Path | None = None
    """Folder that keeps features; null keeps none."""

    def settings(self) -> dict[str, Any]:
        """What may change the features, as plain values."""
        return {"image_size": self.image_size, "precision": self.precision}


@dataclass(frozen=True, eq=False)
class Features:
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


TABLES = tuple(field.name for field in fields(Features))


def extract_features(
    backbone: Backbone, source: Source, extraction: Extraction, *, name: str = "images"
) -> Features:
    """The backbone's globally pooled grid for each image of a source, in its order.

    An image that cannot be read has no row, and `indices` says so; the loader refuses data where
    too many are bad. The backbone itself stays as it is: a copy runs, in eval mode.

    Args:
        name: What the progress bar calls the images.

    Raises:
        DataError: Too many bad images.
    """
    path = None
    if extraction.cache is not None:
        path = extraction.cache / f"{_key(backbone, source, extraction)}.safetensors"
        cached = _load(path)
        if cached is not None:
            return cached
    features = _compute(backbone, source, extraction, name)
    if path is not None:
        _save(features, path)
    return features


def check_same_classes(train: Source, test: Source) -> None:
    """Refuse data in which a label means one thing in training and another in the test.

    Raises:
        DataError: The classes differ, or there are none.
    """
    if not train.categories:
        raise DataError("the training images have no classes; choose a source that has labels.")
    if train.categories != test.categories:
        differ = sorted(set(train.categories) ^ set(test.categories))
        raise DataError(
            f"training and test images have different classes: {listing(differ) or 'other order'}. "
            "Both need the same class names."
        )


def _compute(backbone: Backbone, source: Source, extraction: Extraction, name: str) -> Features:
    backbone = copy.deepcopy(backbone).eval().requires_grad_(False)
    backbone.to(extraction.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    num_batches = -(-len(source) // extraction.batch_size)
    console = Console(stderr=True)
    parts = []
    for batch in track(
        _batches(source, extraction),
        f"features of {name}",
        num_batches,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        values = _forward(backbone, batch.pop("image"), extraction)
        parts.append({"values": values, **batch})
    if not parts:
        raise DataError(f"none of the {len(source)} {name} can be read.")
    return Features(**{key: torch.cat([part[key] for part in parts]).numpy() for key in TABLES})


@torch.inference_mode()
def _forward(backbone: Backbone, images: Tensor, extraction: Extraction) -> Tensor:
    device = extraction.device
    images = normalize(images.to(device, non_blocking=True))
    images = images.contiguous(memory_format=torch.channels_last)
    with autocast(extraction.precision, device):
        grid = backbone(images)  # (B, C, h, w)
    return grid.float().mean((2, 3)).cpu()  # (B, C)


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
    """A source whose image ids are the positions, so that a batch knows which examples it holds."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return replace(self.source[index], image_id=str(index))

    def identity(self) -> dict[str, str | int]:
        return self.source.identity()


def _batches(source: Source, extraction: Extraction) -> Iterator[dict[str, Tensor]]:
    return iter(
        validation_batches(
            _Numbered(source),
            _EncodeImage(ValidationTransform(ImageConfig(size=extraction.image_size))),
            _collate,
            batch_size=extraction.batch_size,
            config=LoaderConfig(num_workers=extraction.num_workers),
        )
    )


def _key(backbone: Backbone, source: Source, extraction: Extraction) -> str:
    """Names the features by everything that they depend on."""
    weights = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        weights.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest([LAYOUT, weights.hexdigest(), _identity(source), extraction.settings()])


def _identity(source: Source) -> Any:
    """A source's identity; of a subset, which examples it has, not just how many."""
    if isinstance(source, Subset):
        return [_identity(source.source), digest([int(index) for index in source.indices])]
    return source.identity()


def _load(path: Path) -> Features | None:
    """Features saved before; none where the file is missing or cut short."""
    try:
        with safe_open(path, framework="numpy") as file:
            return Features(**{name: file.get_tensor(name) for name in TABLES})
    except (FileNotFoundError, SafetensorError):
        return None


def _save(features: Features, path: Path) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: np.ascontiguousarray(getattr(features, name)) for name in TABLES}, temporary)
    temporary.replace(path)
