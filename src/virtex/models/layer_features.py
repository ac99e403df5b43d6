"""Features of one stage of a backbone, pooled to one vector or to about a given size.

Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning", ICCV 2019,
and VirTex before its v1.0 compared the stages of a ResNet by features of about 9,000 numbers: 6 x 6
cells of 256 channels, 4 x 4 of 512, 3 x 3 of 1,024 and 2 x 2 of 2,048. Cells are pooled adaptively,
as in VirTex; Goyal et al. took windows of fixed sizes and strides, which overlap, and whose
means are others.
"""

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.models.feature_grid import reason

LAST = "last"
"""Name of the layer whose grid `Backbone.forward` gives."""
STAGE = re.compile(r"stage([1-9]\d?)")
STEM_STRIDE = 2
"""Largest stride of what timm lists before the first stage."""


def layer_problems(layer: str, feature_size: int | None) -> list[str]:
    """Return what is wrong with a layer's name and a number of features, whatever the backbone."""
    problems = []
    if layer != LAST and not STAGE.fullmatch(layer):
        problems.append(f"layer {layer!r} must be {LAST}, or stage1, stage2, ...")
    if feature_size is not None and not 1 <= feature_size <= 2**20:
        problems.append(f"feature_size {feature_size:,} must be from 1 to {2**20:,}, or null")
    return problems


class LayerFeatures(nn.Module):
    """A backbone up to a layer, from normalized images (B, 3, H, W) to features (B, F)."""

    def __init__(
        self, backbone: Backbone, *, layer: str, feature_size: int | None, image_size: int
    ) -> None:
        """Check that the backbone has the layer, and choose the cells.

        Args:
            feature_size: Number of features that the cells come closest to; None: a single cell.
            image_size: Side of the images in pixels.

        Raises:
            ConfigError: The backbone takes no images of that size, has no such layer, or its grid
                cannot be pooled to that many features.
        """
        super().__init__()
        self.backbone = backbone
        rows, columns = backbone.grid_size(image_size)
        self.index = None if layer == LAST else _index_of(backbone, layer)
        channels = backbone.num_channels
        if self.index is not None:
            channels, rows, columns = self._probe(layer, image_size)
        if feature_size is not None and not channels <= feature_size <= channels * rows * columns:
            raise ConfigError(
                f"feature_size {feature_size:,}: layer {layer} of {backbone.config.name} gives "
                f"{rows} x {columns} cells of {channels:,} channels for images of {image_size} px. "
                f"Give {channels:,} to {channels * rows * columns:,}, another layer, or null."
            )
        wanted = 1 if feature_size is None else nearest_cells(channels, feature_size)
        self.cells = min(wanted, rows, columns)
        """Side of the square of cells to which the grid is pooled."""
        self.num_features = channels * self.cells**2

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, F), float32: channel by channel, each with its cells."""
        grid = self.grid(images).float()  # (B, C, h, w)
        if self.cells == 1:
            return grid.mean((2, 3))
        return functional.adaptive_avg_pool2d(grid, self.cells).flatten(1)

    def grid(self, images: Tensor) -> Tensor:
        """Return the layer's grid (B, C, h, w); deeper layers are not run."""
        if self.index is None:
            return self.backbone(images)
        cnn: Any = self.backbone.cnn
        (grid,) = cnn.forward_intermediates(
            self.backbone.renormalize(images),
            indices=[self.index],
            stop_early=True,
            intermediates_only=True,
        )
        return grid

    def _probe(self, layer: str, image_size: int) -> tuple[int, int, int]:
        """Return the layer's channels, rows and columns."""
        blank = torch.zeros(1, 3, image_size, image_size)
        blank = blank.to(next(self.backbone.parameters()).device)
        was_training = self.backbone.training
        try:
            with torch.no_grad():
                self.backbone.eval()
                channels, rows, columns = self.grid(blank).shape[1:]
        except Exception as error:  # timm's networks raise errors of many kinds
            raise ConfigError(
                f"backbone {self.backbone.config.name!r} does not give the grid of {layer} "
                f"({reason(error)}). Leave the layer out, or choose a resnet, convnext, vit..."
            ) from error
        finally:
            self.backbone.train(was_training)
        return channels, rows, columns


def nearest_cells(channels: int, feature_size: int) -> int:
    """Return the side of the square of cells that comes closest to a number of features."""
    return max(1, round(math.sqrt(feature_size / channels)))


def _index_of(backbone: Backbone, layer: str) -> int | None:
    """Return timm's index of a stage; None for the last one, whose grid is that of `forward`.

    Raises:
        ConfigError: The backbone has no such stage.
    """
    info = list(getattr(backbone.cnn, "feature_info", []))
    if not hasattr(backbone.cnn, "forward_intermediates"):
        info = []
    stages = [index for index, stage in enumerate(info) if stage["reduction"] > STEM_STRIDE]
    found = STAGE.fullmatch(layer)
    number = int(found[1]) if found else 0
    if not 1 <= number <= len(stages):
        allowed = f"stage1 to stage{len(stages)}, or {LAST}" if stages else LAST
        raise ConfigError(
            f"backbone {backbone.config.name!r} has no layer {layer!r}: its layers are {allowed}."
        )
    return None if number == len(stages) else stages[number - 1]
