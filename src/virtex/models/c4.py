"""Objects read from one grid: Faster R-CNN C4, whose head is the backbone's last stage.

Ren et al., "Faster R-CNN" (NeurIPS 2015), on a residual network as He et al., "Deep Residual
Learning" (CVPR 2016, appendix A), have it: proposals and regions come from the last grid but one
(stride 16), and the last stage runs on each region. Here one more BatchNorm follows it, which lets
networks be trained whose features have another scale than ImageNet's, as MoCo does (He et al., CVPR
2020, section 4.2).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from virtex.models.backbone import Backbone
from virtex.models.region_heads import (
    Anchors,
    Neck,
    RegionConfig,
    RegionDetector,
    build_heads,
    build_proposals,
    pool_regions,
)

C4_COUNTS = {
    "num_candidates": 12_000,
    "num_test_candidates": 6_000,
    "num_proposals": 2_000,
    "num_test_proposals": 1_000,
}
"""How many regions are proposed on the one grid where RegionConfig does not say: Detectron2's."""
ANCHOR_STRIDES = (4, 8, 16, 32, 64)
"""Anchors have the sizes that the levels of a pyramid would have."""
REGION_CELLS = 14
"""Side of the grid that is read out of a region; the last stage halves it."""


class SingleGrid(Neck):
    """One grid of the backbone as the only map.

    Args:
        stride: Of the grid.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stages = self.strides = (stride,)
        self.pooled = {str(stride): stride}

    def forward(self, grids: Sequence[Tensor]) -> dict[str, Tensor]:
        """The grid (B, C, h, w) under its stride's name."""
        return dict(zip(self.pooled, grids, strict=True))


class LastStageHead(nn.Module):
    """Regions (R, C, 14, 14) through the backbone's last stage, BatchNorm, and their mean: (R, D).

    The stage stays the backbone's alone: saved, trained, frozen and moved with it, and once.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._stage = (backbone.last_stage(),)  # a tuple hides it from nn.Module
        self.norm = nn.BatchNorm2d(backbone.num_channels)

    def forward(self, regions: Tensor) -> Tensor:
        (stage,) = self._stage
        grids = self.norm(stage(regions))  # (R, D, 7, 7)
        return grids.mean((2, 3))


def build_c4(backbone: Backbone, config: RegionConfig, *, num_categories: int) -> RegionDetector:
    """Faster R-CNN on the backbone's last grid but one.

    Raises:
        ConfigError: The backbone's last stage cannot be run alone.
    """
    config = config.with_counts(C4_COUNTS)
    head = LastStageHead(backbone)
    *_, (stride, channels), _ = backbone.stage_channels().items()
    neck = SingleGrid(stride)
    sides = [config.anchor_scale * anchor_stride for anchor_stride in ANCHOR_STRIDES]
    return RegionDetector(
        backbone,
        neck,
        build_proposals(channels, Anchors([sides], neck.strides), config),
        build_heads(
            pool_regions(neck.pooled, REGION_CELLS),
            head,
            FastRCNNPredictor(backbone.num_channels, num_categories + 1),
            config,
        ),
    )
