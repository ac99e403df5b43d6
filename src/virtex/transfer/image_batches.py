"""Batches of a source's images as validation preprocesses them, for frozen models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from virtex import distributed
from virtex.data.example import Example, Source
from virtex.data.images import Box, open_image
from virtex.data.loader import Batch, LoaderConfig, validation_batches
from virtex.data.transforms import VALIDATION_SURPLUS, ImageConfig, ValidationTransform, resize


def image_batches(
    source: Source,
    image: ImageConfig,
    *,
    batch_size: int,
    loader: LoaderConfig,
    whole_image: bool = False,
) -> Iterator[Batch]:
    """Yield this process's share of the images; those that cannot be read are left out.

    Args:
        batch_size: Images of a batch, over all processes.
        whole_image: Whether to resize the whole image to the square, with nothing cropped.

    Yields:
        `image` (B, 3, H, W) uint8; `index` (B,) into the source; `labels` (M, 2), pairs of index
        and class; `ignored_labels` likewise.

    Raises:
        DataError: Too many bad images.
    """
    transform = WholeTransform(image.size) if whole_image else ValidationTransform(image)
    batches = validation_batches(
        source,
        partial(_encode, transform),
        _collate,
        batch_size=batch_size,
        share=distributed.share(),
        config=loader,
    )
    for batch in batches:
        for name in ("labels", "ignored_labels"):
            batch[name][:, 0] = batch["index"][batch[name][:, 0]]
        yield batch


@dataclass(frozen=True)
class WholeTransform:
    """Resize of the whole image to a square, whatever its aspect ratio."""

    size: int
    """Side of the square, in pixels."""

    def __call__(self, example: Example) -> Tensor:
        """Return the image (3, size, size) uint8."""
        file = open_image(example.image, name=example.location)
        whole = Box(0, 0, file.height, file.width)
        pixels = file.decode(whole, min_size=VALIDATION_SURPLUS * self.size)  # (h, w, 3)
        return resize(pixels, height=self.size, width=self.size)


def _encode(
    transform: ValidationTransform | WholeTransform,
    example: Example,
    generator: np.random.Generator,
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
