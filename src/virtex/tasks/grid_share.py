"""Thinning of the grid: in training the textual head sees a random share of each image's cells.

Liu et al., "OpenVision 2: A Family of Generative Pretrained Visual Encoders for Multimodal
Learning", 2025 (arXiv 2509.01644): the decoder sees 25 to 35 % of a ViT's tokens. Cells are dropped
after the backbone, which needs its whole grid: a convolution has no fewer to compute, and a loss on
pooled features reads all of them.

They are drawn in the loader, after all else that is random in an example: a function of seed, epoch
and index, so that neither processes nor pieces of a step change them, and the example is otherwise
that of a run without.

Shapes: B images, C channels, h w grid, N = h * w cells, k of which are seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from virtex.data.example import Example
from virtex.errors import ConfigError
from virtex.tasks.base import (
    Batch,
    CaptionTask,
    Collate,
    Encode,
    Encoded,
    TaskConfig,
    TaskData,
    stack,
)

NAME = "cells"
"""Name of the seen cells (B, k) in a batch, ascending indices into an image's N."""


@dataclass(frozen=True, kw_only=True)
class WithGridShareConfig(TaskConfig):
    """Option of tasks whose textual head reads the grid."""

    grid_share: float = 1.0
    """Fraction of the grid's cells, drawn for each image and step, that the textual head sees in
    training (OpenVision 2 takes 0.25 to 0.35); validation and captions see all."""

    def grid_problems(self) -> list[str]:
        """Return the problems of this option."""
        if 0 < self.grid_share <= 1:
            return []
        return [f"grid_share {self.grid_share} must be above 0, up to 1, which drops no cells"]


class WithGridShare(CaptionTask):
    """A captioning task whose head may see some of the cells in training."""

    def thin(self, share: float, data: TaskData) -> None:
        """Show the head a share of the cells; `encode` and `collate` are complete before."""
        if share == 1:
            return
        num_cells = math.prod(self.backbone.grid_size(data.image.size))
        if num_seen(share, num_cells) == num_cells:
            raise ConfigError(
                f"grid_share {share}: the grid of images of {data.image.size} px has {num_cells} "
                "cells, all of which would be seen. Give larger images or a smaller share, or "
                "leave grid_share out."
            )
        self.encode = EncodeCells(self.encode, num_cells, num_seen(share, num_cells))
        self.collate = CollateCells(self.collate)

    def seen(self, grid: Tensor, batch: Batch) -> Tensor:
        """Return what the head sees of grids (B, C, h, w): in training the batch's cells alone."""
        return take_cells(grid, batch[NAME]) if self.training and NAME in batch else grid


@dataclass(frozen=True)
class EncodeCells:
    """An encoded example, and the cells of its image that the head sees."""

    encode: Encode
    num_cells: int
    num_seen: int

    def __call__(self, example: Example, generator: np.random.Generator) -> Encoded:
        encoded = self.encode(example, generator)
        drawn = generator.permutation(self.num_cells)[: self.num_seen]
        return {**encoded, NAME: torch.from_numpy(np.sort(drawn))}


@dataclass(frozen=True)
class CollateCells:
    """Collation of examples by another function, and of their cells if they come with some."""

    collate: Collate

    def __call__(self, encoded: Sequence[Encoded]) -> Batch:
        batch = self.collate(encoded)
        cells = [{NAME: item[NAME]} for item in encoded if NAME in item]
        return {**batch, **stack(cells)} if cells else batch


def num_seen(share: float, num_cells: int) -> int:
    """Return the number of cells that a share of them is, at least one."""
    return max(1, round(share * num_cells))


def take_cells(grid: Tensor, cells: Tensor) -> Tensor:
    """Return some cells (B, k) of grids (B, C, h, w) as grids of one column (B, C, k, 1)."""
    batch_size, _, height, width = grid.shape
    rows = grid.flatten(2).transpose(1, 2).flatten(0, 1)  # (B * N, C)
    starts = torch.arange(batch_size, device=cells.device) * (height * width)
    # On a CPU gather, whose index would have all channels, takes thirty times as long.
    taken = rows.index_select(0, (cells + starts[:, None]).flatten())  # (B * k, C)
    return taken.unflatten(0, cells.shape).transpose(1, 2)[..., None]
