"""Batches of images, read and decoded ahead of the model by worker processes."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.data.packed import PackedStrings
from virtex.data.transforms import ImageConfig, ValidationTransform
from virtex.data.worker_limits import Need
from virtex.data.workers import Prepared

FEW = 64
"""Largest number of images for which no worker is started, since that would take longer."""
NUM_WORKERS, PREFETCH = 2, 2


class ImageBatch(NamedTuple):
    """A batch of images; those that cannot be read are listed apart."""

    names: list[str]
    images: Tensor
    """(B, 3, H, W) uint8"""
    bad_images: list[tuple[str, str]]
    """Names, and reasons why they cannot be read."""


def image_batches(
    names: Sequence[str],
    batches: Sequence[Sequence[int]],
    config: ImageConfig,
    *,
    num_workers: int | None = None,
) -> Iterator[ImageBatch]:
    """Yield the images of each batch, resized and cropped as in validation.

    Args:
        names: Paths of all images.
        batches: Indices into `names`.
        num_workers: Number of processes that read; 0 reads in this one.
    """
    if num_workers is None:
        num_workers = NUM_WORKERS if sum(map(len, batches)) > FEW else 0
    largest = max(map(len, batches), default=0)
    with closing(
        Prepared(
            _Reader(PackedStrings(names), ValidationTransform(config)),
            batches,
            num_workers=num_workers,
            prefetch=PREFETCH,
            need=Need(largest * 3 * config.size**2, 1),
        )
    ) as prepared:
        yield from prepared


class _Reader(Dataset[ImageBatch]):
    """A data set whose items are batches, given by the indices of their images."""

    def __init__(self, names: PackedStrings, transform: ValidationTransform) -> None:
        self.names, self.transform = names, transform

    def __getitem__(self, indices: Sequence[int]) -> ImageBatch:
        batch = ImageBatch([], torch.empty(0), [])
        images: list[Tensor] = []
        for name in (self.names[index] for index in indices):
            try:
                images.append(self.transform(Example(name, Path(name))))
                batch.names.append(name)
            except BadImageError as error:
                batch.bad_images.append((name, error.reason))
        return batch._replace(images=torch.stack(images)) if images else batch
