"""Equal captions, images and ids, by their 64-bit hashes in arrays."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from virtex.data.example import Source
from virtex.progress import ProgressBar

Hashes = NDArray[np.int64]
EVERY = 10_000


@dataclass(frozen=True)
class Shared:
    """Captions that several images have."""

    num_different: int
    """Number of different captions."""
    num_shared: int
    """Number of captions that another image has too."""
    num_images: NDArray[np.int32]
    """Number of images with the caption of the same entry, (P,)."""
    most_frequent: list[tuple[int, int]]
    """Number of images and position of one caption, for the captions of the most images."""


def shared_captions(hashes: Hashes, images: NDArray[np.int32], *, most: int) -> Shared:
    """Return which of P captions several images have.

    Args:
        images: The image of each caption, in ascending order.
        most: How many of the most frequent captions are given.
    """
    order = np.argsort(hashes, kind="stable")  # so that the images of a group ascend
    ordered = hashes[order]
    is_first = _is_first(ordered)
    ordered_images = images[order]
    is_new = is_first.copy()
    is_new[1:] |= ordered_images[1:] != ordered_images[:-1]
    groups = np.cumsum(is_first, dtype=np.int32) - 1
    counts = np.bincount(groups[is_new])
    num_images = np.empty(len(hashes), np.int32)
    num_images[order] = counts[groups] if len(counts) else 0
    examples = order[is_first]  # the first caption of each group
    largest = np.lexsort((examples, -counts))[:most]
    frequent = zip(counts[largest].tolist(), examples[largest].tolist(), strict=True)
    return Shared(
        num_different=len(counts),
        num_shared=int(np.count_nonzero(num_images > 1)),
        num_images=num_images,
        most_frequent=[(count, example) for count, example in frequent if count > 1],
    )


def copies(hashes: Hashes) -> NDArray[np.int64]:
    """Return the positions of the hashes that occurred before, in ascending order."""
    order = np.argsort(hashes, kind="stable")
    return np.sort(order[~_is_first(hashes[order])])


def common(hashes: Hashes, others: Hashes) -> NDArray[np.int64]:
    """Return the positions of the hashes that are among others."""
    return np.flatnonzero(np.isin(hashes, others))


def hash_ids(source: Source, *, seed: int, title: str) -> Hashes:
    """Return a hash of each image's id that is the same in every process."""
    salt = seed.to_bytes(16, "little", signed=True)
    hashes = np.empty(len(source), np.int64)
    with ProgressBar(title, len(source)) as bar:
        for index in range(len(source)):
            hashes[index] = _digest(source.image_id(index), salt)
            if index % EVERY == 0:
                bar.reach(index)
    return hashes


def hash_bytes(data: bytes | bytearray) -> int:
    """Return a hash of an image file's content."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def _digest(name: str, salt: bytes) -> int:
    data = name.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "little", signed=True)


def _is_first(ordered: Hashes) -> NDArray[np.bool_]:
    is_first = np.ones(len(ordered), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return is_first
