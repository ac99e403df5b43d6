"""One image with its annotations, and the base class of data sources."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = Sequence[int] | NDArray[np.int64]
NUM_HASH_DIGITS = 16
"""Hexadecimal digits that tell the subsets of one source apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image and its annotations; entry m of each box and mask field describes object m."""

    image_id: str
    """Unique within its source."""
    image: Path | bytes | NDArray[np.uint8]
    """Path, encoded file (JPEG, PNG, WebP), or decoded RGB pixels (H, W, 3)."""
    captions: tuple[str, ...] = ()
    caption_weights: tuple[float, ...] = ()
    """Proportion of the steps that draw each caption; empty where all are as likely."""
    caption_keys: tuple[str, ...] = ()
    """Key that each caption is under, as `caption_keys` of `SourceConfig`; empty without keys."""
    labels: tuple[int, ...] = ()
    """Distinct indices into the source's `categories` of the classes present in the image."""
    ignored_labels: tuple[int, ...] = ()
    """Classes that count neither as present nor as absent (VOC's `difficult`)."""
    boxes: NDArray[np.float32] | None = None
    """Corners x1 y1 x2 y2 in pixels: (M, 4)."""
    box_labels: tuple[int, ...] = ()
    masks: tuple[Any, ...] = ()
    """COCO segmentations, each a list of polygons or {"size": [H, W], "counts": ...}."""
    crowd: tuple[bool, ...] = ()
    """Whether each box stands for a group (COCO's `iscrowd`); empty where none does."""
    difficult: tuple[bool, ...] = ()
    """Whether evaluation ignores each box (VOC's `difficult`); empty where it ignores none."""
    areas: NDArray[np.float32] | None = None
    """Area of each object in pixels, (M,), where the annotations have it."""
    absent_labels: tuple[int, ...] = ()
    """Classes that annotators verified as absent (LVIS's negatives)."""
    incomplete_labels: tuple[int, ...] = ()
    """Classes whose objects do not all have a box (LVIS's `not_exhaustive`)."""
    annotated_size: tuple[float, float] | None = None
    """Height and width of the image that the objects were annotated in; None if unknown."""

    @property
    def location(self) -> str:
        """Path of the image, or else its id, for messages."""
        return str(self.image) if isinstance(self.image, Path) else self.image_id


class ImageFile(NamedTuple):
    """Where an image is stored, whatever its id: two sources may have it in common."""

    path: str
    """File of the image, or the shard or data set that holds it."""
    position: int = 0
    """Offset or row of the image in a file of several."""


class ShardCounts(NamedTuple):
    """How the examples of a source lie in shards, one behind the other."""

    counts: tuple[NDArray[np.int64], ...]
    """Number of examples of each shard, an array for each of the sources that are mixed."""
    weights: tuple[float, ...] | None = None
    """Proportion of the training examples from each mixed source; None if there is only one."""


class Source(ABC):
    """A data set that is picklable and cheap to fork.

    Creating one raises a DataError with everything that is wrong with the data. `[i]` is a pure
    function of i, and cheap: it does not decode the image.
    """

    categories: tuple[str, ...] = ()
    """Class names, which labels index; empty where there are no classes."""
    frequencies: tuple[str, ...] = ()
    """Frequency of each class: r (rare), c (common) or f (frequent); LVIS alone has it."""
    caption_keys: tuple[str, ...] = ()
    """Keys that captions are under; empty where they have none."""
    shard_counts: ShardCounts | None = None
    """The shards of a source that is too large to visit all of its examples before training."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def image_id(self, index: int) -> str:
        """Return the id of `[index]`, if possible without the cost of the example."""
        return self[index].image_id

    def image_file(self, index: int) -> ImageFile | None:
        """Return where the image of `[index]` is stored, without reading it; None if unknown."""
        del index
        return None

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of `[index]`, if possible without the cost of the example."""
        return self[index].captions

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of `[index]`, if possible without the cost of the example."""
        return self[index].labels

    def sample_captions(self, limit: int, *, seed: int) -> Iterator[str]:
        """Yield the captions of all images; of a source in shards, about `limit` drawn ones."""
        del limit, seed
        return (caption for index in range(len(self)) for caption in self.captions(index))

    def replacements(self, index: int, rng: np.random.Generator, *, number: int) -> Iterable[int]:
        """Return the examples to try, in this order, instead of one that cannot be read."""
        del index
        return [int(other) for other in rng.integers(len(self), size=number)]

    @abstractmethod
    def identity(self) -> dict[str, str | int]:
        """Return the provenance of the data: source, root, counts, sha256 of the annotations."""


class Subset(Source):
    """The examples of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: Indices) -> None:
        self.source, self.indices = source, np.asarray(indices, np.int64)
        self.categories, self.frequencies = source.categories, source.frequencies
        self.caption_keys = source.caption_keys

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]

    def image_id(self, index: int) -> str:
        return self.source.image_id(int(self.indices[index]))

    def image_file(self, index: int) -> ImageFile | None:
        return self.source.image_file(int(self.indices[index]))

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
