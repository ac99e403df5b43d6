"""Faster R-CNN C4: detection on a single grid, with the backbone's last stage as the head.

Ren et al., "Faster R-CNN" (NeurIPS 2015), on a residual network as in He et al., "Deep Residual
Learning" (CVPR 2016, appendix A): proposals and regions come from the grid of stride 16, before the
last stage, which runs on each region. A BatchNorm layer follows it, for networks whose features
have another scale than ImageNet's, as in MoCo (He et al., CVPR 2020, section 4.2).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from virtex.models.backbone import Backbone
from virtex.models.pyramid import Neck
from virtex.models.region_heads import (
    RegionConfig,
    RegionDetector,
    build_heads,
    build_proposals,
)
from virtex.models.region_pool import RegionPool
from virtex.models.region_proposals import Anchors

C4_COUNTS = {
    "num_candidates": 12_000,
    "num_test_candidates": 6_000,
    "num_proposals": 2_000,
    "num_test_proposals": 1_000,
}
"""Default numbers of proposals on a single grid, Detectron2's."""
ANCHOR_STRIDES = (4, 8, 16, 32, 64)
"""Strides of the pyramid levels whose anchor sizes the single grid has."""
REGION_CELLS = 14
"""Side of the grid that is pooled from a region; the last stage halves it."""


class SingleGrid(Neck):
    """A neck that passes one grid of the backbone on, that of `stride`."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stages = self.strides = (stride,)
        self.pooled = {str(stride): stride}

    def forward(self, grids: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the grid (B, C, h, w) by its name."""
        return dict(zip(self.pooled, grids, strict=True))


class LastStageHead(nn.Module):
    """The backbone's last stage, BatchNorm, and the mean over cells.

    The stage belongs to the backbone only, with which it is saved, trained, frozen and moved.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._stage = (backbone.last_stage(),)  # a tuple hides it from nn.Module
        self.norm = nn.BatchNorm2d(backbone.num_channels)

    def forward(self, regions: Tensor) -> Tensor:
        """Return the features (R, D) of regions (R, C, 14, 14)."""
        (stage,) = self._stage
        grids = self.norm(stage(regions))  # (R, D, 7, 7)
        return grids.mean((2, 3))


def build_c4(backbone: Backbone, config: RegionConfig, *, num_categories: int) -> RegionDetector:
    """Return Faster R-CNN on the backbone's second to last grid.

    Raises:
        ConfigError: The backbone's last stage cannot be run separately.
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
            RegionPool(neck.pooled, REGION_CELLS),
            head,
            FastRCNNPredictor(backbone.num_channels, num_categories + 1),
            config,
        ),
    )
