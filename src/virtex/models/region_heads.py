"""Two-stage detectors: region proposals on feature maps, then the class, box and mask of each.

Lin et al., "Feature Pyramid Networks" (CVPR 2017): levels, anchors, and the level of a region
(equation 1). He et al., "Mask R-CNN" (ICCV 2017): boxes and masks. The parts are torchvision's,
with these differences:

- Strides are the backbone's. torchvision infers them from the sizes of the first batch, which is
  wrong for padded or odd sizes and would differ after a resume.
- Anchors, box deltas and logits are float32 even under autocast: eight bits of mantissa misplace a
  box by pixels.
- Losses can be computed in evaluation mode.

As in torchvision, and unlike Detectron2, box losses are smooth L1 that is squared below 1/9,
regions are pooled without a half-pixel shift, and linear layers have PyTorch's initialization.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone

FINEST_STRIDE = 4
"""Finest stride of the pyramid; finer grids cost much and find little."""
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
BOX_CELLS, MASK_CELLS = 7, 14
"""Sides of the grids that are pooled from a region."""
SAMPLES_PER_CELL = 2
NUM_MASK_LAYERS = 4
PYRAMID_COUNTS = {
    "num_candidates": 2000,
    "num_test_candidates": 1000,
    "num_proposals": 1000,
    "num_test_proposals": 1000,
}
"""Default numbers of proposals on a pyramid, Detectron2's."""
LOSS_NAMES = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal_box",
    "loss_classifier": "classifier",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class RegionConfig:
    """Sizes of the neck and heads of a detector; the defaults are Mask R-CNN's."""

    pyramid_channels: int = 256
    """Channels of each level of the pyramid, and of the mask head; C4 has no pyramid."""
    pyramid_norm: bool = False
    """BatchNorm after each convolution of the pyramid."""
    box_width: int = 1024
    """Width of the two layers of the box head; C4 has the backbone's last stage instead."""
    anchor_scale: int = 8
    """Side of an anchor in strides of its level: 32 pixels at stride 4. Halve it if most objects
    are smaller than that. C4 has anchors of all five sizes in each cell of its grid."""
    num_anchors: int = 256
    """Anchors sampled per image for the proposal losses, at most half of them positive."""
    num_regions: int = 512
    """Regions sampled per image for the box losses, at most a quarter of them positive."""
    num_candidates: int | None = None
    """Training proposals per level before suppression; null: 2,000, and 12,000 for C4."""
    num_test_candidates: int | None = None
    """Validation proposals per level before suppression; null: 1,000, and 6,000 for C4."""
    num_proposals: int | None = None
    """Training proposals per image after suppression; null: 1,000, and 2,000 for C4."""
    num_test_proposals: int | None = None
    """Validation proposals per image after suppression; null: 1,000."""
    score_threshold: float = 0.05
    """Minimum score of a detection."""
    num_detections: int = 100
    """Maximum number of detections per image."""

    def __post_init__(self) -> None:
        counts = [name for name, value in vars(self).items() if type(value) is int]
        problems = out_of_range(self, dict.fromkeys(counts, (1, 2**17)))
        if not 0 <= self.score_threshold < 1:
            problems.append(f"score_threshold {self.score_threshold} must be from 0 to below 1")
        raise_all(ConfigError, "the options of the region heads cannot work", problems)

    def with_counts(self, counts: Mapping[str, int]) -> Self:
        """Return these options with each null replaced by the default of `counts`."""
        missing: dict[str, Any] = {
            name: count for name, count in counts.items() if vars(self)[name] is None
        }
        return replace(self, **missing)


class Detections(NamedTuple):
    """D detections of one image, by descending score."""

    boxes: Tensor
    """(D, 4) corners x1 y1 x2 y2 in pixels."""
    labels: Tensor
    """(D,) class labels from 1."""
    scores: Tensor
    """(D,) probabilities of the labels."""
    masks: Tensor | None
    """(D, H, W) bool, or None without a mask head."""


class Neck(nn.Module):
    """A module from grids (B, C, h, w) of a backbone to named maps for proposals and regions."""

    stages: tuple[int, ...]
    """Strides of the input grids."""
    strides: tuple[int, ...]
    """Strides of the output maps."""
    pooled: dict[str, int]
    """Names and strides of the maps from which regions are pooled."""


class RegionDetector(nn.Module):
    """A backbone, a neck, proposals on the neck's maps, and the heads for each proposal.

    Arguments of all methods: images (B, 3, H, W) normalized; sizes, each image's height and width
    without padding; targets, for each image boxes (M, 4) in pixels, labels (M,) int64 from 1, and
    masks (M, H, W) uint8 if there is a mask head; M may be 0.
    """

    def __init__(
        self, backbone: Backbone, neck: Neck, proposals: RegionProposalNetwork, heads: RoIHeads
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.proposals, self.heads = backbone, neck, proposals, heads

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the neck's maps (B, C, h, w) by name."""
        return self.neck(self.backbone.stages(images, self.neck.stages))

    def losses(
        self, images: Tensor, sizes: Sequence[Size], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the scalar losses, of which the sum is minimized, in evaluation mode too.

        Anchors and regions are sampled by torch's global generator.
        """
        maps, sizes = self.maps(images), list(sizes)
        with _computing_losses(self.proposals, self.heads):
            regions, first = self.proposals(ImageList(images, sizes), maps, targets)
            _, second = self.heads(maps, regions, sizes, targets)
        return {LOSS_NAMES[name]: loss for name, loss in {**first, **second}.items()}

    @torch.no_grad()
    def predict(
        self, images: Tensor, sizes: Sequence[Size], *, image_sizes: Sequence[Size]
    ) -> list[Detections]:
        """Return the detections of each image.

        Args:
            image_sizes: Sizes before resizing, to which boxes and masks are scaled.
        """
        assert not self.training, "call .eval() first: BatchNorm would spoil the result"
        maps, sizes = self.maps(images), list(sizes)
        regions, _ = self.proposals(ImageList(images, sizes), maps)
        found, _ = self.heads(maps, regions, sizes)
        return [_in_image(*one) for one in zip(found, sizes, image_sizes, strict=True)]


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


class Anchors(nn.Module):
    """Float32 anchors of three shapes, with the sides in pixels and the stride of each map."""

    def __init__(self, sizes: Sequence[Sequence[int]], strides: Sequence[int]) -> None:
        super().__init__()
        ratios = (ANCHOR_RATIOS,) * len(strides)
        self.generator = AnchorGenerator(tuple(map(tuple, sizes)), ratios)
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors (A, 4) of each image, which are equal."""
        self.generator.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [list(features.shape[2:]) for features in feature_maps]
        levels = self.generator.grid_anchors(grids, [[stride, stride] for stride in self.strides])
        return [torch.cat(levels)] * len(image_list.image_sizes)


def build_mask_rcnn(
    backbone: Backbone, config: RegionConfig, *, num_categories: int, with_masks: bool
) -> RegionDetector:
    """Return Mask R-CNN on a feature pyramid; without masks it is Faster R-CNN.

    Raises:
        ConfigError: The backbone does not give the grids of several strides.
    """
    config = config.with_counts(PYRAMID_COUNTS)
    channels = backbone.stage_channels()
    grids = {stride: channels[stride] for stride in channels if stride >= FINEST_STRIDE}
    neck = Pyramid(grids, config.pyramid_channels, with_norm=config.pyramid_norm)
    sides = [[config.anchor_scale * stride] for stride in neck.strides]
    proposals = build_proposals(neck.num_channels, Anchors(sides, neck.strides), config)
    heads = build_heads(
        pool_regions(neck.pooled, BOX_CELLS),
        TwoMLPHead(neck.num_channels * BOX_CELLS**2, config.box_width),
        FastRCNNPredictor(config.box_width, num_categories + 1),
        config,
    )
    if with_masks:
        width = neck.num_channels
        heads.mask_roi_pool = pool_regions(neck.pooled, MASK_CELLS)
        heads.mask_head = MaskRCNNHeads(width, [width] * NUM_MASK_LAYERS, dilation=1)
        heads.mask_predictor = _in_float32(MaskRCNNPredictor(width, width, num_categories + 1))
    return RegionDetector(backbone, neck, proposals, heads)


def build_proposals(
    num_channels: int, anchors: Anchors, config: RegionConfig
) -> RegionProposalNetwork:
    """Return a network that proposes regions on maps of `num_channels`; `config` has no null."""
    return RegionProposalNetwork(
        anchors,
        _in_float32(RPNHead(num_channels, anchors.generator.num_anchors_per_location()[0])),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=config.num_anchors,
        positive_fraction=0.5,
        pre_nms_top_n={"training": config.num_candidates, "testing": config.num_test_candidates},
        post_nms_top_n={"training": config.num_proposals, "testing": config.num_test_proposals},
        nms_thresh=0.7,
    )


def build_heads(
    pool: MultiScaleRoIAlign, head: nn.Module, predictor: nn.Module, config: RegionConfig
) -> RoIHeads:
    """Return the heads that predict each region's class and box.

    Args:
        pool: Module from maps and regions to (R, C, cells, cells).
        head: Module from these to features (R, width).
        predictor: Module from these to logits (R, K) and box deltas (R, 4 K), background first.
    """
    return RoIHeads(
        pool,
        head,
        _in_float32(predictor),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.num_regions,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=config.score_threshold,
        nms_thresh=0.5,
        detections_per_img=config.num_detections,
    )


def pool_regions(strides: dict[str, int], num_cells: int) -> MultiScaleRoIAlign:
    """Return a module that pools `num_cells` squared for each region, from the map for its size.

    The strides of the maps are given by name, finest first.
    """
    pool = MultiScaleRoIAlign(list(strides), num_cells, SAMPLES_PER_CELL)
    levels = [stride.bit_length() - 1 for stride in strides.values()]
    pool.scales = [1 / stride for stride in strides.values()]
    pool.map_levels = LevelMapper(min(levels), max(levels))
    return pool


@contextmanager
def _computing_losses(*parts: nn.Module) -> Iterator[None]:
    """Set parts of torchvision to compute losses, while their layers keep their training mode."""
    modes = [part.training for part in parts]
    for part in parts:
        part.training = True
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _in_float32(module: nn.Module) -> nn.Module:
    """Return the module, whose outputs are now float32 under autocast too."""
    module.register_forward_hook(_to_float32)
    return module


def _to_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Convert a tensor, or the tensors in nested tuples and lists; a forward hook."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return type(outputs)(_to_float32(module, inputs, output) for output in outputs)


def _in_image(found: dict[str, Tensor], size: Size, image_size: Size) -> Detections:
    """Return torchvision's detections, scaled from the resized image to the original."""
    (height, width), (image_height, image_width) = size, image_size
    scale = [image_width / width, image_height / height] * 2
    boxes = found["boxes"] * found["boxes"].new_tensor(scale)
    masks = None
    if "masks" in found:
        masks = paste_masks_in_image(found["masks"], boxes, image_size)[:, 0] >= 0.5  # (D, H, W)
    return Detections(boxes, found["labels"], found["scores"], masks)
