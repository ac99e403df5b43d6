"""Image patches that are augmented one by one and shuffled.

The jigsaw transform of Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant
Representations", CVPR 2020, after Noroozi and Favaro, ECCV 2016: each cell of 85 pixels of a
255-pixel crop gives a patch of 64 at a random position. Those sizes belong to images of 224 pixels;
others are in proportion.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from virtex.data.example import Example
from virtex.data.transforms import ImageConfig, flip_and_recolor, random_crop

GRID = 3
"""Cells per side."""
NUM_PATCHES = GRID * GRID
CELL_FRACTION, PATCH_FRACTION = 85 / 224, 64 / 224
CROP_SCALE = (0.6, 1.0)
"""Fraction of the image's area to crop, as in the authors' configuration."""


@dataclass(frozen=True)
class JigsawTransform:
    """A function from an image to nine shuffled patches, each flipped and recolored by itself."""

    config: ImageConfig

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return round(PATCH_FRACTION * self.config.size)

    def __call__(self, example: Example, rng: np.random.Generator) -> Tensor:
        """Return patches (9, 3, P, P) uint8."""
        side = GRID * round(CELL_FRACTION * self.config.size)
        whole = replace(self.config, size=side, scale=CROP_SCALE, validation_resize=None)
        patches = cut(random_crop(example, whole, rng), self.patch_size, rng)
        changed = [flip_and_recolor(patch, self.config, rng)[0] for patch in patches]
        return torch.stack(changed)[rng.permutation(NUM_PATCHES)]


def cut(image: Tensor, patch_size: int, rng: np.random.Generator) -> list[Tensor]:
    """Return a patch (3, P, P) at a random position in each cell of an image (3, S, S), by row."""
    cell_size = image.shape[1] // GRID
    offsets = rng.integers(cell_size - patch_size + 1, size=(NUM_PATCHES, 2)).tolist()
    patches = []
    for cell, (down, right) in enumerate(offsets):
        row, column = divmod(cell, GRID)
        top, left = row * cell_size + down, column * cell_size + right
        patches.append(image[:, top : top + patch_size, left : left + patch_size])
    return patches
