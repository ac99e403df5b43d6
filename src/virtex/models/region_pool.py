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

from virtex.models.fixed_shapes import may_read

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

    def forward(self, maps: Mapping[str, Tensor], regions: Tensor) -> Tensor:
        """Return the grids (R, C, cells, cells) of regions.

        Args:
            maps: Maps (B, C, h, w) by name.
            regions: (R, 5) from `in_rows`.
        """
        if len(self.strides) == 1:
            ((name, stride),) = self.strides.items()
            return self._pool(maps[name], regions, stride)
        levels = self._levels(regions[:, 1:])
        pool = self._by_rows if may_read(regions) else self._by_masks
        return pool(maps, regions, levels)

    def _by_rows(self, maps: Mapping[str, Tensor], regions: Tensor, levels: Tensor) -> Tensor:
        """Pool each region from the map of its level (R,)."""
        finest = maps[next(iter(self.strides))]
        pooled = finest.new_zeros(len(regions), finest.shape[1], self.num_cells, self.num_cells)
        for level, (name, stride) in enumerate(self.strides.items()):
            (rows,) = torch.where(levels == level)
            pooled[rows] = self._pool(maps[name], regions[rows], stride).to(pooled.dtype)
        return pooled

    def _by_masks(self, maps: Mapping[str, Tensor], regions: Tensor, levels: Tensor) -> Tensor:
        """Do the same by shapes that do not depend on levels: from each map, pool all regions.

        Those of other levels are empty there, and RoIAlign reads nothing for them; its
        deterministic variant divides by the number of cells in a region, hence needs one.
        """
        side = 1e-3 if torch.are_deterministic_algorithms_enabled() else 0.0
        empty = torch.zeros_like(regions[:, 1:])
        empty[:, 2:] += side
        parts = []
        for level, (name, stride) in enumerate(self.strides.items()):
            is_own = (levels == level)[:, None]  # (R, 1)
            own = torch.cat([regions[:, :1], torch.where(is_own, regions[:, 1:], empty)], dim=1)
            pooled = self._pool(maps[name], own, stride)
            parts.append(torch.where(is_own[..., None, None], pooled, 0))
        return torch.stack(parts).sum(0)

    def _pool(self, features: Tensor, regions: Tensor, stride: int) -> Tensor:
        return roi_align(features, regions, self.num_cells, 1 / stride, 0, aligned=True)

    def _levels(self, boxes: Tensor) -> Tensor:
        """Return for each box (R, 4) the index (R,) of the map that fits its size."""
        finest = next(iter(self.strides.values()))
        side = REFERENCE_SIDE * finest / REFERENCE_STRIDE
        levels = torch.floor(torch.log2(box_area(boxes).sqrt() / side + 1e-8))
        return levels.clamp(0, len(self.strides) - 1)


def in_rows(boxes: Sequence[Tensor] | Tensor) -> Tensor:
    """Return regions (R, 5), index of the image and corners, of each image's boxes (N, 4)."""
    images = [one.new_full((len(one), 1), index) for index, one in enumerate(boxes)]
    return torch.cat([torch.cat(images), torch.cat(list(boxes))], dim=1)
