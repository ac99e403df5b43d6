"""Images to batches, read and decoded ahead of the model by worker processes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.data.loader import leave_signals_to_parent
from virtex.data.packed import PackedStrings
from virtex.data.transforms import ImageConfig, ValidationTransform

FEW = 64
"""Number of images for which starting workers takes longer than they save."""
NUM_WORKERS = 2


class ImageBatch(NamedTuple):
    """Images that could be read, in order, and those that could not."""

    names: list[str]
    images: Tensor
    """(B, 3, H, W) uint8"""
    bad_images: list[tuple[str, str]]
    """Names and reasons."""


def image_batches(
    names: Sequence[str],
    batches: Sequence[Sequence[int]],
    config: ImageConfig,
    *,
    num_workers: int | None = None,
) -> Iterator[ImageBatch]:
    """Yield the images of each batch, as validation sees them.

    Args:
        names: Paths.
        batches: Indices of the names that make up each batch.
        num_workers: Processes that read; 0: this one; None: some, where there is enough to read.
    """
    if num_workers is None:
        num_workers = NUM_WORKERS if sum(map(len, batches)) > FEW else 0
    loader = DataLoader(
        _Reader(PackedStrings(names), ValidationTransform(config)),
        batch_size=None,  # an item of the reader is a batch already
        sampler=batches,
        num_workers=num_workers,
        worker_init_fn=leave_signals_to_parent,
        generator=torch.Generator().manual_seed(0),  # or torch draws from its global one
    )
    yield from loader


class _Reader(Dataset[ImageBatch]):
    """Reads a batch, given the indices of its images."""

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
