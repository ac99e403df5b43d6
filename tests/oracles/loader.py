"""The loader's slow twin: one process, no torch loader, with everything drawn for each batch."""

from collections.abc import Iterator

import numpy as np

from virtex.data.example import Source
from virtex.data.images import BadImageError
from virtex.data.loader import MAX_REPLACEMENTS, Batch, Collate, Encode, Encoded


def training_samples(
    num_examples: int, *, seed: int, step: int, batch_size: int
) -> list[tuple[int, int]]:
    """(epoch, example) of each member of global batch `step`, by writing all epochs out."""
    num_needed = (step + 1) * batch_size
    row: list[tuple[int, int]] = []
    epoch = 0
    while len(row) < num_needed:
        order = np.random.default_rng([seed, epoch]).permutation(num_examples)
        row += [(epoch, int(example)) for example in order]
        epoch += 1
    return row[step * batch_size : num_needed]


def training_batch(
    source: Source,
    encode: Encode,
    collate: Collate,
    *,
    seed: int,
    step: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Batch:
    """This rank's part of global batch `step`."""
    samples = training_samples(len(source), seed=seed, step=step, batch_size=batch_size)
    part = batch_size // world_size
    samples = samples[rank * part : (rank + 1) * part]
    return collate([_read(source, encode, seed, epoch, example) for epoch, example in samples])


def validation_batches(
    source: Source,
    encode: Encode,
    collate: Collate,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """This rank's part of each batch over all examples in order, bad ones left out."""
    part = batch_size // world_size
    for first in range(0, len(source), batch_size):
        members = range(first, min(first + batch_size, len(source)))
        encoded = []
        for example in members[rank * part : (rank + 1) * part]:
            try:
                encoded.append(encode(source[example], np.random.default_rng([0, 0, example])))
            except BadImageError:
                continue
        if encoded:
            yield collate(encoded)


def _read(source: Source, encode: Encode, seed: int, epoch: int, example: int) -> Encoded:
    rng = np.random.default_rng([seed, epoch, example, 1])
    replacements = rng.integers(len(source), size=MAX_REPLACEMENTS).tolist()
    for candidate in [example, *replacements]:
        try:
            return encode(source[candidate], np.random.default_rng([seed, epoch, candidate]))
        except BadImageError:
            continue
    raise AssertionError("the twin is for sources with some good examples")
