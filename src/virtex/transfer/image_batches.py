"""The validation images of a source, batch by batch, for protocols that train nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from virtex import distributed
from virtex.data.example import Example, Source
from virtex.data.loader import Batch, LoaderConfig, validation_batches
from virtex.data.transforms import ImageConfig, ValidationTransform
from virtex.progress import tracked


@dataclass(frozen=True)
class _EncodeImage:
    """An image as validation sees it."""

    transform: ValidationTransform

    def __call__(self, example: Example, generator: np.random.Generator) -> dict[str, Tensor]:
        del generator
        return {"image": self.transform(example)}


def _stack(encoded: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {"image": torch.stack([item["image"] for item in encoded])}  # (B, 3, H, W)


def image_batches(
    source: Source, image: ImageConfig, *, batch_size: int, loader: LoaderConfig, title: str
) -> Iterator[Batch]:
    """This process's part of the images, with a progress bar on a terminal.

    Args:
        batch_size: Over all processes.
        title: What the progress bar says.

    Yields:
        `image` (B, 3, H, W) uint8 and `index` (B,), the places in the source. Images that cannot be
        read are left out.

    Raises:
        DataError: Too many of them.
    """
    batches = validation_batches(
        source,
        _EncodeImage(ValidationTransform(image)),
        _stack,
        batch_size=batch_size,
        share=distributed.share(),
        config=loader,
    )
    return tracked(batches, title, len(source), each=batch_size)
