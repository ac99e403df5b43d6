"""Necks of detectors: from a backbone's grids to the maps on which regions are proposed.

Lin et al., "Feature Pyramid Networks" (CVPR 2017). Li et al., "Exploring Plain Vision Transformer
Backbones for Object Detection" (ECCV 2022), section 3: the simple feature pyramid of a ViT.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from virtex.errors import ConfigError

LEVELS = (4, 8, 16, 32)
"""Strides of a simple pyramid's levels, without the last one."""


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


class SimplePyramid(Neck):
    """A pyramid on the only grid of a ViT, with one more level of every other cell.

    A level finer than the grid is made by transposed convolutions, each of which doubles the sides
    and halves the channels, a coarser one by max pooling; a 1 x 1 and a 3 x 3 convolution follow.
    LayerNorm follows each of them, as in the paper.

    Args:
        stride: Stride of the grid.
        grid_channels: Channels of the grid.
        num_channels: Channels of each level.

    Raises:
        ConfigError: The stride is none of the levels'.
    """

    def __init__(self, stride: int, grid_channels: int, num_channels: int) -> None:
        super().__init__()
        if stride not in LEVELS:
            raise ConfigError(
                f"a detector needs a ViT whose patches have a side of {LEVELS} pixels, and these "
                f"have {stride}: choose another backbone, such as vit_base_patch16_224"
            )
        self.stages = (stride,)
        self.strides = (*LEVELS, 2 * max(LEVELS))
        self.pooled = {str(level): level for level in LEVELS}
        self.num_channels = num_channels
        self.levels = nn.ModuleList(
            _level(stride, level, grid_channels, num_channels) for level in LEVELS
        )

    def forward(self, grids: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return maps (B, num_channels, h, w) at `strides` for the grid (B, C, h, w)."""
        (grid,) = grids
        maps = {name: level(grid) for name, level in zip(self.pooled, self.levels, strict=True)}
        coarsest = maps[str(max(LEVELS))]
        return {**maps, "pool": F.max_pool2d(coarsest, kernel_size=1, stride=2)}


def _level(stride: int, level: int, grid_channels: int, num_channels: int) -> nn.Sequential:
    """Return the layers from a grid at `stride` to the map at `level`."""
    layers: list[nn.Module] = []
    for finer in (s for s in reversed(LEVELS) if level <= s < stride):
        layers.append(nn.ConvTranspose2d(grid_channels, grid_channels // 2, 2, stride=2))
        grid_channels //= 2
        if finer > level:
            layers += [LayerNorm2d(grid_channels, eps=1e-6), nn.GELU()]
    for _ in (s for s in LEVELS if stride < s <= level):
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # of a grid of one row, too
    for channels, side in ((grid_channels, 1), (num_channels, 3)):
        convolution = nn.Conv2d(channels, num_channels, side, padding=side // 2, bias=False)
        layers += [convolution, LayerNorm2d(num_channels, eps=1e-6)]
    return nn.Sequential(*layers)
