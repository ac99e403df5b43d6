"""What every source of data yields: one image with whatever is known about it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = Sequence[int] | NDArray[np.int64]
NUM_HASH_DIGITS = 16
"""Enough to tell the subsets of one source apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image and its annotations; pixels are decoded by whoever needs them.

    Box and mask fields run in parallel: entry m of each describes object m.
    """

    image_id: str
    """Unique within its source."""
    image: Path | bytes | NDArray[np.uint8]
    """A path, an encoded file (JPEG, PNG, WebP), or decoded RGB pixels (H, W, 3)."""
    captions: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    """Ids, into the source's `categories`, of the classes present in the image."""
    ignored_labels: tuple[int, ...] = ()
    """Classes that neither count as present nor as absent (VOC's `difficult`)."""
    boxes: NDArray[np.float32] | None = None
    """(M, 4) corners x1 y1 x2 y2 in pixels."""
    box_labels: tuple[int, ...] = ()
    masks: tuple[Any, ...] = ()
    """COCO segmentations: a list of polygons, or {"size": [H, W], "counts": ...}."""
    crowd: tuple[bool, ...] = ()
    """True where a box stands for a group (COCO's `iscrowd`); empty where none does."""
    difficult: tuple[bool, ...] = ()
    """True where missing a box counts for nothing (VOC's `difficult`); empty where none is so."""
    areas: NDArray[np.float32] | None = None
    """(M,) pixels that each object covers, where the annotations say so."""
    absent_labels: tuple[int, ...] = ()
    """Classes that somebody looked for and did not find (LVIS's negatives)."""
    incomplete_labels: tuple[int, ...] = ()
    """Classes of which not every object has a box (LVIS's `not_exhaustive`)."""

    @property
    def location(self) -> str:
        """Where a person finds the image: its path, or else its id."""
        return str(self.image) if isinstance(self.image, Path) else self.image_id


class Source(ABC):
    """A data set: `len`, `[i]`, picklable, cheap to fork; checked up front when built.

    `[i]` must be a pure function of i and cheap: it does not decode the image.
    """

    categories: tuple[str, ...] = ()
    """Class names; a label is an index into them. Empty where there are no classes."""
    frequencies: tuple[str, ...] = ()
    """For each class r (rare), c (common) or f (frequent), where the data tell (LVIS)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of `[index]`, where they cost less than the example."""
        return self[index].captions

    def labels(self, index: int) -> tuple[int, ...]:
        """The labels of `[index]`, where they cost less than the example."""
        return self[index].labels

    @abstractmethod
    def identity(self) -> dict[str, str | int]:
        """What this data is, for the record: source, root, counts, sha256 of the annotations."""


class Subset(Source):
    """The examples of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: Indices) -> None:
        self.source, self.indices = source, np.asarray(indices, np.int64)
        self.categories, self.frequencies = source.categories, source.frequencies

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]

    def captions(self, index: int) -> tuple[str, ...]:
        return self.source.captions(int(self.indices[index]))

    def labels(self, index: int) -> tuple[int, ...]:
        return self.source.labels(int(self.indices[index]))

    def identity(self) -> dict[str, str | int]:
        whole = self.source.identity()
        digest = hashlib.sha256(str(whole.get("subset_sha256", "")).encode())
        digest.update(self.indices.tobytes())
        return {
            **whole,
            "subset": len(self.indices),
            "subset_sha256": digest.hexdigest()[:NUM_HASH_DIGITS],
        }
