"""Necks of detectors: from a backbone's grids to the maps on which regions are proposed.

Lin et al., "Feature Pyramid Networks" (CVPR 2017).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool


class Neck(nn.Module):
    """A module from grids (B, C, h, w) of a backbone to named maps for proposals and regions."""

    stages: tuple[int, ...]
    """Strides of the input grids."""
    strides: tuple[int, ...]
    """Strides of the output maps."""
    pooled: dict[str, int]
    """Names and strides of the maps from which regions are pooled."""


class Pyramid(Neck):
    """A feature pyramid on a backbone's grids, with one more level of every other cell.

    Args:
        grids: Channels of the backbone's grids by their stride, finest first.
        num_channels: Channels of each level.
        with_norm: Whether BatchNorm follows each convolution, which then has no bias.
    """

    def __init__(self, grids: dict[int, int], num_channels: int, *, with_norm: bool) -> None:
        super().__init__()
        self.stages = tuple(grids)
        self.strides = (*grids, 2 * max(grids))
        self.pooled = {str(stride): stride for stride in grids}
        self.num_channels = num_channels
        norm = nn.BatchNorm2d if with_norm else None
        self.fpn = FeaturePyramidNetwork(
            list(grids.values()), num_channels, LastLevelMaxPool(), norm_layer=norm
        )

    def forward(self, grids: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return maps (B, num_channels, h, w) at `strides` for grids (B, C, h, w) at `stages`."""
        return self.fpn(dict(zip(self.pooled, grids, strict=True)))
