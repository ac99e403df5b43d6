"""A few class labels for each of many images, in two flat arrays."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from virtex.data.packed import starts_of


@dataclass(frozen=True, eq=False)
class LabelLists:
    """The labels of N images."""

    labels: NDArray[np.int32]
    """Those of all images, one image after the other; ascending within an image."""
    starts: NDArray[np.int64]
    """(N + 1,) the label that each image starts with."""

    @classmethod
    def of_pairs(
        cls, images: NDArray[np.int64], labels: NDArray[np.int32], *, num_images: int
    ) -> Self:
        """The lists in which label p stands for image p of P pairs; each label once an image.

        Args:
            images: (P,) positions from 0.
            labels: (P,) from 0.
        """
        span = int(labels.max(initial=0)) + 1
        pairs = np.unique(images * span + labels)  # in one number: sorting rows is far slower
        counts = np.bincount(pairs // span, minlength=num_images)
        return cls((pairs % span).astype(np.int32), starts_of(counts.tolist()))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> tuple[int, ...]:
        index = range(len(self))[index]
        return tuple(self.labels[self.starts[index] : self.starts[index + 1]].tolist())
