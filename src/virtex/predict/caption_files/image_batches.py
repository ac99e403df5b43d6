"""Images to batches, read and decoded ahead of the model by worker processes."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.data.packed import PackedStrings
from virtex.data.transforms import ImageConfig, ValidationTransform
from virtex.predict.caption_files.web_images import fetch_images, is_address

FEW = 64
"""For so many images, starting workers takes longer than they save."""
NUM_WORKERS = 2


class ImageBatch(NamedTuple):
    """Images that could be read, in order, and those that could not."""

    names: list[str]
    images: Tensor
    """(B, 3, H, W) uint8"""
    contents: list[Path | bytes]
    """Where each image is, or what was fetched; empty unless it was asked for."""
    bad_images: list[tuple[str, str]]
    """Names and reasons."""


def image_batches(
    names: Sequence[str],
    batches: Sequence[Sequence[int]],
    config: ImageConfig,
    *,
    num_workers: int | None = None,
    with_contents: bool = False,
) -> Iterator[ImageBatch]:
    """The images of each batch, as validation sees them.

    Args:
        names: Paths, and http(s) addresses, which are fetched.
        batches: Which of them make up each batch.
        num_workers: Processes that read; 0: this one; None: some, where there is enough to read.
        with_contents: Give the files as well.
    """
    if num_workers is None:
        num_workers = NUM_WORKERS if sum(map(len, batches)) > FEW else 0
    loader = DataLoader(
        _Reader(PackedStrings(names), ValidationTransform(config), with_contents),
        batch_size=None,  # an item of the reader is a batch already
        sampler=batches,
        num_workers=num_workers,
        collate_fn=_unchanged,
        worker_init_fn=_leave_interrupts_to_parent,
        generator=torch.Generator().manual_seed(0),  # or torch draws from its global one
    )
    yield from loader


class _Reader(Dataset[ImageBatch]):
    """Numbers of images to a batch, in a worker; torch calls it a data set."""

    def __init__(
        self, names: PackedStrings, transform: ValidationTransform, with_contents: bool
    ) -> None:
        self.names, self.transform, self.with_contents = names, transform, with_contents

    def __getitem__(self, indices: Sequence[int]) -> ImageBatch:
        batch = ImageBatch([], torch.empty(0), [], [])
        images: list[Tensor] = []
        names = [self.names[index] for index in indices]
        fetched = fetch_images([name for name in names if is_address(name)])
        for name in names:
            try:
                content = _content(name, fetched)
                images.append(self.transform(Example(name, content)))
            except BadImageError as error:
                batch.bad_images.append((name, error.reason))
            else:
                batch.names.append(name)
                if self.with_contents:
                    batch.contents.append(content)
        return batch._replace(images=torch.stack(images)) if images else batch


def _content(name: str, fetched: Mapping[str, bytes | BadImageError]) -> Path | bytes:
    content = fetched.get(name, Path(name))
    if isinstance(content, BadImageError):
        raise content
    return content


def _unchanged(batch: Any) -> Any:
    return batch


def _leave_interrupts_to_parent(worker: int) -> None:
    """Ctrl-C signals all processes; workers end when the one that reads them does."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
