"""Batches of a source's images as validation preprocesses them, for frozen models."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from virtex import distributed
from virtex.data.example import Example, Source
from virtex.data.loader import Batch, LoaderConfig, validation_batches
from virtex.data.transforms import ImageConfig, ValidationTransform


def image_batches(
    source: Source, image: ImageConfig, *, batch_size: int, loader: LoaderConfig
) -> Iterator[Batch]:
    """Yield this process's share of the images; those that cannot be read are left out.

    Args:
        batch_size: Images of a batch, over all processes.

    Yields:
        `image` (B, 3, H, W) uint8; `index` (B,) into the source; `labels` (M, 2), pairs of index
        and class; `ignored_labels` likewise.

    Raises:
        DataError: Too many bad images.
    """
    batches = validation_batches(
        source,
        partial(_encode, ValidationTransform(image)),
        _collate,
        batch_size=batch_size,
        share=distributed.share(),
        config=loader,
    )
    for batch in batches:
        for name in ("labels", "ignored_labels"):
            batch[name][:, 0] = batch["index"][batch[name][:, 0]]
        yield batch


def _encode(
    transform: ValidationTransform, example: Example, generator: np.random.Generator
) -> Batch:
    """Return an image with its labels, since reading the example again may be slow."""
    del generator
    return {
        "image": transform(example),
        "labels": torch.tensor(example.labels, dtype=torch.int64),
        "ignored_labels": torch.tensor(example.ignored_labels, dtype=torch.int64),
    }


def _collate(encoded: Sequence[Batch]) -> Batch:
    return {
        "image": torch.stack([item["image"] for item in encoded]),  # (B, 3, H, W)
        "labels": _pairs([item["labels"] for item in encoded]),
        "ignored_labels": _pairs([item["ignored_labels"] for item in encoded]),
    }


def _pairs(labels: list[Tensor]) -> Tensor:
    """Return pairs (M, 2) of row in the batch and class."""
    rows = torch.repeat_interleave(torch.tensor([len(own) for own in labels]))
    return torch.stack([rows, torch.cat(labels)], dim=1)
