"""Captions that are read before training: all of a source, or a sample of bounded size."""

from collections.abc import Iterator

import numpy as np

from virtex.data.example import Source

SEED = 0
"""Random seed of the sample; a constant, so that runs of other seeds share a vocabulary."""


class TooManyCaptionsError(Exception):
    """A source has more captions than were to be read."""


def all_captions(source: Source, *, most: int) -> Iterator[str]:
    """Yield the captions of a source in order.

    Raises:
        TooManyCaptionsError: They are more than `most`, before which so many may have been given.
    """
    if len(source) > most:
        raise TooManyCaptionsError
    count = 0
    for index in range(len(source)):
        captions = source.captions(index)
        count += len(captions)
        if count > most:
            raise TooManyCaptionsError
        yield from captions


def drawn_captions(source: Source, *, most: int) -> Iterator[str]:
    """Yield at most `most` captions that are drawn at random, as many from each part of a source.

    In order, one image is drawn from each of equal parts, and the same number of captions from each
    of these images, or all that it has.
    """
    rng = np.random.default_rng(SEED)
    num_images = min(len(source), most)
    starts = np.arange(num_images + 1) * len(source) // num_images
    images, draws = rng.integers(starts[:-1], starts[1:]), rng.random(num_images)
    for index, draw in zip(images.tolist(), draws.tolist(), strict=True):
        captions = source.captions(index)
        first = int(draw * len(captions))
        chosen = (*captions[first:], *captions[:first])
        yield from chosen[: most // num_images]


def drawn_references(source: Source, *, most: int) -> list[tuple[str, ...]]:
    """Return the captions of each of at most `most` images, evenly spaced in the source.

    Those of a source in shards are of bounded number, and each counts as an image of its own.
    """
    if source.shard_counts is not None:
        return [(caption,) for caption in source.sample_captions(most, seed=SEED)]
    num_images = min(len(source), most)
    indices = np.arange(num_images) * len(source) // max(num_images, 1)
    return [tuple(source.captions(index)) for index in indices.tolist()]
