"""Boxes as location tokens: a coordinate is one of a few bins of the image's side.

Chen et al., "Pix2seq: A Language Modeling Framework for Object Detection" (ICLR 2022), section 2.1.
All coordinates share the bins, and a box is four tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from virtex.data.masks import Boxes

NUM_COORDINATES = 4


@dataclass(frozen=True)
class LocationTokens:
    """The tokens of coordinates within a square image, with ids in a row."""

    first_id: int
    num_bins: int
    size: int
    """Side of the image in pixels."""

    def encode(self, boxes: Boxes) -> Tensor:
        """Return the token ids (M, 4) int64 of boxes (M, 4) within the image, in pixels."""
        bins = np.floor(boxes * (self.num_bins / self.size)).astype(np.int64)
        return torch.from_numpy(self.first_id + bins.clip(0, self.num_bins - 1))

    def decode(self, tokens: Tensor) -> Boxes:
        """Return the boxes (M, 4) in pixels at the centers of their bins, given ids (M, 4).

        Each coordinate is within half a bin of the encoded one.
        """
        centers = (tokens.numpy() - self.first_id + 0.5) * (self.size / self.num_bins)
        return centers.astype(np.float32)
