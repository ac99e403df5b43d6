"""A picture cut into patches that are changed one by one and put out of order.

The jigsaw transform of Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant
Representations", CVPR 2020, after Noroozi and Favaro, ECCV 2016: of a crop of 255 pixels each cell
of 85 gives a patch of 64 at a random place. Those sizes go with images of 224; others are in
proportion.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from virtex.data.example import Example
from virtex.data.transforms import ImageConfig, flip_and_recolor, random_crop

GRID = 3
"""Cells on a side."""
NUM_PATCHES = GRID * GRID
CELL_SHARE, PATCH_SHARE = 85 / 224, 64 / 224
CROP_SCALE = (0.6, 1.0)
"""Share of the image's area that is cut up, as in the authors' configuration."""


@dataclass(frozen=True)
class JigsawTransform:
    """An image to nine patches in random order, each flipped and recoloured by itself."""

    config: ImageConfig

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return round(PATCH_SHARE * self.config.size)

    def __call__(self, example: Example, rng: np.random.Generator) -> Tensor:
        """Patches (9, 3, P, P) uint8.

        Raises:
            BadImageError: The image is missing, corrupt, truncated or too large.
        """
        side = GRID * round(CELL_SHARE * self.config.size)
        whole = replace(self.config, size=side, scale=CROP_SCALE, validation_resize=None)
        patches = cut(random_crop(example, whole, rng), self.patch_size, rng)
        changed = [flip_and_recolor(patch, self.config, rng)[0] for patch in patches]
        return torch.stack(changed)[rng.permutation(NUM_PATCHES)]


def cut(image: Tensor, patch_size: int, rng: np.random.Generator) -> list[Tensor]:
    """A patch (3, P, P) at a random place of each cell of an image (3, S, S), row by row."""
    cell_size = image.shape[1] // GRID
    places = rng.integers(cell_size - patch_size + 1, size=(NUM_PATCHES, 2)).tolist()
    patches = []
    for cell, (down, right) in enumerate(places):
        row, column = divmod(cell, GRID)
        top, left = row * cell_size + down, column * cell_size + right
        patches.append(image[:, top : top + patch_size, left : left + patch_size])
    return patches
