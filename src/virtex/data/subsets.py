"""Parts of a source: held out for validation, or for measuring how far less data goes."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Example, Source, Subset

NUM_HASHES = 2**64


class FewerCaptions(Source):
    """The examples of `source` with at most their first `num_captions` captions."""

    def __init__(self, source: Source, num_captions: int) -> None:
        self.source, self.num_captions = source, num_captions
        self.categories = source.categories

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        example = self.source[index]
        return replace(example, captions=example.captions[: self.num_captions])

    def captions(self, index: int) -> tuple[str, ...]:
        return self.source.captions(index)[: self.num_captions]

    def identity(self) -> dict[str, str | int]:
        return {**self.source.identity(), "captions_per_image": self.num_captions}


def random_share(source: Source, share: float, *, seed: int) -> Subset:
    """A share of the examples (one at least), in the order of `source`.

    With the same seed a smaller share is part of every larger one.
    """
    size = max(1, round(share * len(source)))
    chosen = np.random.default_rng(seed).permutation(len(source))[:size]
    return Subset(source, np.sort(chosen))  # type: ignore[arg-type]  # a sequence of int it is


def share_of_each_class(source: Source, share: float, *, seed: int) -> Subset:
    """A share of the examples of each class (one at least), in the order of `source`.

    With the same seed a smaller share is part of every larger one. An example's class is its first
    label.
    """
    classes = np.asarray([source[index].labels[0] for index in range(len(source))])
    order = np.random.default_rng(seed).permutation(len(source))
    chosen = []
    for label in np.unique(classes):
        members = order[classes[order] == label]
        chosen.append(members[: max(1, round(share * len(members)))])
    return Subset(source, np.sort(np.concatenate(chosen)))  # type: ignore[arg-type]


def held_out(image_ids: Iterable[str], share: float, *, seed: int) -> NDArray[np.bool_]:
    """Which images (N,) are held out: those whose hash, of id and seed, falls below `share`.

    An image stays on its side when others are added or removed.
    """
    limit = share * NUM_HASHES
    salt = seed.to_bytes(16, "little", signed=True)
    hashes = (
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
        for name in image_ids
    )
    return np.asarray([int.from_bytes(one, "little") < limit for one in hashes], np.bool_)
