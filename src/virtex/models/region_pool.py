"""RoIAlign: a grid of features for each region, from the map of the pyramid that fits its size.

He et al., "Mask R-CNN" (ICCV 2017), section 3; Lin et al., "Feature Pyramid Networks" (CVPR 2017),
equation 1. As in Detectron2, the center of a map's first cell lies half a cell from the border, and
a pooled cell is the mean over as many samples as it covers cells of the map. In torchvision's
detectors the center lies on the border, and there are two by two samples.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_area, roi_align

REFERENCE_SIDE, REFERENCE_STRIDE = 224, 16
"""Side in pixels of a square region that is pooled from the map of this stride."""


class RegionPool(nn.Module):
    """Pools `num_cells` squared for each region.

    Args:
        strides: Strides of the maps by their name, finest first, each twice the one before.
        num_cells: Side of the grid that is pooled.
    """

    def __init__(self, strides: Mapping[str, int], num_cells: int) -> None:
        super().__init__()
        self.strides = dict(strides)
        self.num_cells = num_cells

    def forward(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return the grids (R, C, cells, cells) of the R regions of all images, in order.

        Args:
            maps: Maps (B, C, h, w) by name.
            boxes: For each image the corners (N, 4) of its regions in pixels.
        """
        images = [one.new_full((len(one), 1), index) for index, one in enumerate(boxes)]
        regions = torch.cat([torch.cat(images), torch.cat(list(boxes))], dim=1)  # (R, 5)
        if len(self.strides) == 1:
            ((name, stride),) = self.strides.items()
            return self._pool(maps[name], regions, stride)
        levels = self._levels(regions[:, 1:])
        finest = maps[next(iter(self.strides))]
        pooled = finest.new_zeros(len(regions), finest.shape[1], self.num_cells, self.num_cells)
        for level, (name, stride) in enumerate(self.strides.items()):
            (rows,) = torch.where(levels == level)
            pooled[rows] = self._pool(maps[name], regions[rows], stride).to(pooled.dtype)
        return pooled

    def _pool(self, features: Tensor, regions: Tensor, stride: int) -> Tensor:
        return roi_align(features, regions, self.num_cells, 1 / stride, 0, aligned=True)

    def _levels(self, boxes: Tensor) -> Tensor:
        """Return for each box (R, 4) the index (R,) of the map that fits its size."""
        finest = next(iter(self.strides.values()))
        side = REFERENCE_SIDE * finest / REFERENCE_STRIDE
        levels = torch.floor(torch.log2(box_area(boxes).sqrt() / side + 1e-8))
        return levels.clamp(0, len(self.strides) - 1)
