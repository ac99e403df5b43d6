"""Batches of made-up images and captions, collated by a task itself."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from benchmarks.step import LENGTHS, PER_MILLE
from virtex.data.example import Example
from virtex.data.transforms import ImageConfig
from virtex.tasks.base import Batch, Task
from virtex.tokens import NUM_SPECIAL

VOCAB_SIZE = 10_000
NUM_BATCHES = 4
"""Batches in rotation, of different numbers of tokens."""


class Numbers:
    """A vocabulary whose words are the numbers of their tokens."""

    vocab_size = VOCAB_SIZE

    def encode(self, caption: str) -> list[int]:
        """Return the numbers in a caption."""
        return [int(word) for word in caption.split()]


def plain_images(size: int) -> ImageConfig:
    """Return image options without augmentation, which is not what is measured."""
    return ImageConfig(size=size, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_prob=0, jitter_prob=0)


def caption_of(generator: np.random.Generator) -> str:
    """Return a caption whose number of tokens is drawn from COCO's."""
    shares = np.array(PER_MILLE) / sum(PER_MILLE)
    num_words = generator.choice(np.array(LENGTHS), p=shares) - 2  # without start and end
    return " ".join(map(str, generator.integers(NUM_SPECIAL, VOCAB_SIZE, num_words)))


def made_up_batches(task: Task, *, batch_size: int, size: int) -> list[list[Batch]]:
    """Return the data of some steps, each as one piece, in pinned memory if there is a GPU."""
    generator = np.random.default_rng(0)
    pool = generator.integers(0, 256, (32, size, size, 3), dtype=np.uint8)
    steps = []
    for step in range(NUM_BATCHES):
        encoded = []
        for index in range(batch_size):
            image = pool[(step + index) % len(pool)]
            example = Example(str(index), image, captions=(caption_of(generator),))
            encoded.append(task.encode(example, generator))
        steps.append([pinned({**task.collate(encoded), "index": torch.arange(batch_size)})])
    return steps


def pinned(batch: Batch) -> Batch:
    """Return a batch in pinned memory, if there is a GPU."""
    if not torch.cuda.is_available():
        return batch
    return {name: value.pin_memory() for name, value in batch.items()}


def rotation(steps: Sequence[list[Batch]]) -> Iterator[list[Batch]]:
    """Yield the data of the steps again and again."""
    while True:
        yield from steps
