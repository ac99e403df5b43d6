"""Pooled features of all images of a source from a frozen backbone, and their cache."""

import copy
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from torch import Tensor

from virtex import distributed, files
from virtex.data.example import Source, Subset
from virtex.data.loader import Batch, LoaderConfig
from virtex.data.transforms import ImageConfig, normalize
from virtex.engine.run import Precision, autocast
from virtex.errors import DataError
from virtex.models.backbone import Backbone
from virtex.models.layer_features import LAST, LayerFeatures
from virtex.models.state_dict import state_digest
from virtex.progress import ProgressBar
from virtex.transfer.image_batches import image_batches
from virtex.transfer.protocol import digest

CPU = torch.device("cpu")
CHUNK = 20_000
"""Images whose features are written together; an interrupted command loses at most these."""
LAYOUT = 3
"""Version of the cache; raise it where the same key would mean other features."""
MOST_FILES = 20_000
"""Most image files whose sizes and times are compared, evenly spaced among all."""


@dataclass(frozen=True)
class Extraction:
    """Options of feature extraction."""

    image_size: int = 224
    """Side of the centre crop; the short side is resized to image_size * 256 / 224 before it."""
    precision: Precision = "fp32"
    batch_size: int = 64
    num_workers: int = 2
    device: torch.device = CPU
    bad_image_limit: float = 0.01
    """Largest fraction of bad images."""
    cache: Path | None = None
    """Folder of the cache; None caches nothing."""
    layer: str = LAST
    """Layer whose grid is pooled: last, or stage1, stage2, ..."""
    feature_size: int | None = None
    """Number of features to which the grid is pooled, about; None: the mean of its cells."""
    whole_image: bool = False
    """Resize the whole image to a square, with nothing cropped."""

    def settings(self) -> dict[str, Any]:
        """Return what may change the features, as plain values, without options left out."""
        usual = {"image_size": self.image_size, "precision": self.precision}
        others = {name: getattr(self, name) for name in ("layer", "feature_size", "whole_image")}
        return usual | {
            name: value for name, value in others.items() if value != getattr(Extraction, name)
        }


class Features(NamedTuple):
    """Pooled features of the readable images of a source, and their labels."""

    values: NDArray[np.float32]
    """(N, F)"""
    indices: NDArray[np.int64]
    """(N,) ascending indices into the source."""
    labels: NDArray[np.int64]
    """(M, 2) pairs of index and class, for the classes that are present."""
    ignored_labels: NDArray[np.int64]
    """Pairs like those of `labels`, for the classes whose presence is unknown."""

    def select(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and classes of pairs of index and class."""
        return np.searchsorted(self.indices, pairs[:, 0]), pairs[:, 1]


TABLES = Features._fields
NO_PAIRS = np.zeros((0, 2), np.int64)
NOTHING = Features(np.zeros((0, 0), np.float32), np.zeros(0, np.int64), NO_PAIRS, NO_PAIRS)


def extract_features(
    backbone: Backbone, source: Source, extraction: Extraction, *, name: str = "images"
) -> Features:
    """Return the pooled grid of the backbone's layer for each image of a source, in its order.

    An image that cannot be read has no row, as `indices` shows. A copy of the backbone runs, in
    evaluation mode. Processes share the work; the main one gets the features, the others no rows.

    Args:
        name: Name of the images in the progress bar.

    Raises:
        ConfigError: The backbone takes no images of that size, or has no such layer.
        DataError: Too many bad images.
    """
    run = _Runner(backbone, source, extraction, name)
    spans = [
        range(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)
    ]
    folder = extraction.cache and extraction.cache / _key(backbone, source, extraction)
    kept: list[Features | None] = [None] * len(spans)
    if folder and distributed.is_main():
        kept = [_load(_chunk_path(folder, span)) for span in spans]
    missing = distributed.gather_objects([chunk is None for chunk in kept])[0]
    with run.progress:
        for k in np.flatnonzero(missing):
            chunk = kept[k] = run(spans[k])
            if folder and distributed.is_main():
                _save(chunk, _chunk_path(folder, spans[k]))
    if not distributed.is_main():
        return NOTHING
    features = _concatenated([chunk for chunk in kept if chunk])
    if not len(features.indices):
        raise DataError(f"none of the {len(source)} {name} can be read.")
    return features


def extract_splits(
    backbone: Backbone, train: Source, test: Source, extraction: Extraction
) -> tuple[Features, Features]:
    """Return the features of training and test images; see `extract_features`.

    Raises:
        DataError: Too many bad images, or features that are NaN or infinite.
    """
    known = extract_features(backbone, train, extraction, name="training images")
    unknown = extract_features(backbone, test, extraction, name="test images")
    check_finite(training=known.values, test=unknown.values)
    return known, unknown


def check_finite(**features: NDArray[np.float32]) -> None:
    """Raise DataError for features (N, C) that are NaN or infinite, by the role of their images."""
    bad = {name: int((~np.isfinite(values).all(axis=1)).sum()) for name, values in features.items()}
    if any(bad.values()):
        counts = " and ".join(f"{number} {name} images" for name, number in bad.items() if number)
        raise DataError(
            f"the features of {counts} hold NaN or infinity: no classifier can be trained or "
            "tested on them. Did pretraining diverge? Look at its loss, or give an earlier "
            "checkpoint."
        )


def backbone_digest(backbone: Backbone) -> str:
    """Return a hash of a backbone's architecture, weights and statistics, and how it is trained."""
    config = backbone.config
    identity: list[object] = [config.name.partition(".")[0], config.options]
    if config.freeze_stages or config.drop_path:
        identity += [config.freeze_stages, config.drop_path]
    if config.image_mean is not None:
        identity += [config.image_mean, config.image_std]
    return state_digest(backbone.state_dict(), identity=digest(identity).encode())


class _Runner:
    """Extraction of features of parts of a source; each process does its share."""

    def __init__(
        self, backbone: Backbone, source: Source, extraction: Extraction, name: str
    ) -> None:
        self.source, self.extraction = source, extraction
        self.network = LayerFeatures(
            copy.deepcopy(backbone).eval().requires_grad_(False),
            layer=extraction.layer,
            feature_size=extraction.feature_size,
            image_size=extraction.image_size,
        ).eval()
        self.network.to(extraction.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.progress = ProgressBar(f"features of {name}", len(source))

    def __call__(self, span: range) -> Features:
        width, offset = self.network.num_features, torch.tensor([span.start, 0])
        own = [NOTHING._replace(values=np.zeros((0, width), np.float32))]
        for batch in self._batches(span):
            tables = (
                self._forward(batch["image"]),
                batch["index"] + span.start,
                batch["labels"] + offset,
                batch["ignored_labels"] + offset,
            )
            own.append(Features(*(table.numpy() for table in tables)))
            self.progress.reach(int(own[-1].indices[-1]) + 1)
        parts = distributed.gather_on_main(_concatenated(own))
        if not parts:
            return NOTHING
        features = _concatenated(parts)
        order = np.argsort(features.indices, kind="stable")
        return features._replace(values=features.values[order], indices=features.indices[order])

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Tensor:
        device = self.extraction.device
        images = normalize(images.to(device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.extraction.precision, device):
            return self.network(images).cpu()  # (B, F)

    def _batches(self, span: range) -> Iterator[Batch]:
        config = self.extraction
        return image_batches(
            Subset(self.source, span),
            ImageConfig(size=config.image_size),
            whole_image=config.whole_image,
            batch_size=config.batch_size,
            loader=LoaderConfig(
                num_workers=config.num_workers, bad_image_limit=config.bad_image_limit
            ),
        )


def _concatenated(parts: Sequence[Features]) -> Features:
    return Features(*(np.concatenate(tables) for tables in zip(*parts, strict=True)))


def _key(backbone: Backbone, source: Source, extraction: Extraction) -> str:
    """Return a hash of everything that the features depend on."""
    parts = [backbone_digest(backbone), *pixels_identity(source), extraction.settings()]
    return digest([LAYOUT, *parts])


def pixels_identity(source: Source) -> list[Any]:
    """Return a source's identity, and a hash of the sizes and times of its image files, if any.

    A set whose images were resized, replaced or repaired in place is then another one, which no
    cache takes for what it was.
    """
    step = max(1, -(-len(source) // MOST_FILES))
    found = (source.image_file(index) for index in range(0, len(source), step))
    paths = dict.fromkeys(one.path for one in found if one is not None)
    stamps = [_stamp(path) for path in paths]
    return [data_identity(source), *([digest(stamps)] if any(stamps) else [])]


def _stamp(path: str) -> list[int]:
    """Return the size and time of a file; nothing for a folder, a URL, or what is absent."""
    try:
        status = Path(path).stat()
    except OSError:
        return []
    is_file = stat.S_ISREG(status.st_mode)
    return [status.st_size, status.st_mtime_ns] if is_file else []


def data_identity(source: Source) -> Any:
    """Return a source's identity, for a subset with a hash of its indices."""
    if isinstance(source, Subset):
        return [data_identity(source.source), digest([int(index) for index in source.indices])]
    return source.identity()


def _chunk_path(folder: Path, span: range) -> Path:
    return folder / f"{span.start:09}.safetensors"


def _load(path: Path) -> Features | None:
    """Return cached features, or None where the file is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return Features(*(file.get_tensor(name) for name in TABLES))
    except (FileNotFoundError, SafetensorError):
        return None


def _save(features: Features, path: Path) -> None:
    tables = {name: np.ascontiguousarray(table) for name, table in features._asdict().items()}
    files.write(path, to_safetensors(tables))
