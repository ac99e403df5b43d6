"""Class labels of many images in two flat arrays."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from virtex.data.packed import starts_of


@dataclass(frozen=True, eq=False)
class LabelLists:
    """The labels of N images."""

    labels: NDArray[np.int32]
    """Labels of all images in order, ascending within an image."""
    starts: NDArray[np.int64]
    """Index of each image's first label, and the end, (N + 1,)."""

    @classmethod
    def of_pairs(
        cls, images: NDArray[np.int64], labels: NDArray[np.int32], *, num_images: int
    ) -> Self:
        """Return the distinct labels of each image, from P pairs of image and label."""
        span = int(labels.max(initial=0)) + 1
        pairs = np.unique(images * span + labels)  # as one number, since sorting rows is far slower
        counts = np.bincount(pairs // span, minlength=num_images)
        return cls((pairs % span).astype(np.int32), starts_of(counts.tolist()))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> tuple[int, ...]:
        index = range(len(self))[index]
        return tuple(self.labels[self.starts[index] : self.starts[index + 1]].tolist())
