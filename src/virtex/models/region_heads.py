"""Two-stage detectors: region proposals on feature maps, then the class, box and mask of each.

Lin et al., "Feature Pyramid Networks" (CVPR 2017): levels, anchors, and the level of a region
(equation 1). He et al., "Mask R-CNN" (ICCV 2017): boxes and masks. The layers are
torchvision's; anchors, pooling, losses, masks and initial weights are Detectron2's
(region_proposals.py, region_pool.py, region_masks.py and here), whose numbers the field compares
with. What still differs is listed in docs/transfer.md. Besides:

- Losses are computed by torchvision's rules in tensors of fixed shapes, without its functions.
- Box deltas and logits are float32 even under autocast.
- Losses can be computed in evaluation mode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.models.backbone import Backbone
from virtex.models.pyramid import Neck, Pyramid, SimplePyramid
from virtex.models.region_masks import paste_masks
from virtex.models.region_outputs import RegionOutputs
from virtex.models.region_pool import RegionPool
from virtex.models.region_proposals import Anchors, RegionProposals
from virtex.models.region_targets import Targets

FINEST_STRIDE = 4
"""Finest stride of the pyramid; finer grids cost much and find little."""
BOX_CELLS, MASK_CELLS = 7, 14
"""Sides of the grids that are pooled from a region."""
NUM_MASK_LAYERS = 4
PYRAMID_COUNTS = {
    "num_candidates": 2000,
    "num_test_candidates": 1000,
    "num_proposals": 1000,
    "num_test_proposals": 1000,
}
"""Default numbers of proposals on a pyramid, Detectron2's."""
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class RegionConfig:
    """Sizes of the neck and heads of a detector; the defaults are Mask R-CNN's."""

    pyramid_channels: int = 256
    """Channels of each level of the pyramid, and of the mask head; C4 has no pyramid."""
    pyramid_norm: bool = False
    """BatchNorm after each convolution of the pyramid; a ViT's has LayerNorm always."""
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
    """Proposals per level before suppression, for losses; null: 2,000, and 12,000 for C4."""
    num_test_candidates: int | None = None
    """The same for detections; null: 1,000, and 6,000 for C4."""
    num_proposals: int | None = None
    """Proposals per image after suppression, for losses; null: 1,000, and 2,000 for C4."""
    num_test_proposals: int | None = None
    """The same for detections; null: 1,000."""
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


class RegionDetector(nn.Module):
    """A backbone, a neck, proposals on the neck's maps, and the heads for each proposal.

    Images (B, 3, H, W) are normalized; sizes are each image's height and width without padding.
    """

    def __init__(
        self, backbone: Backbone, neck: Neck, proposals: RegionProposals, heads: RegionOutputs
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.proposals, self.heads = backbone, neck, proposals, heads

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the neck's maps (B, C, h, w) by name."""
        return self.neck(self.backbone.stages(images, self.neck.stages))

    def losses(self, images: Tensor, sizes: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Return the scalar losses, of which the sum is minimized, in evaluation mode too.

        Args:
            sizes: (B, 2)
            targets: The ground truth, with masks if there is a mask head.
        """
        maps = self.maps(images)
        proposals, losses = self.proposals.propose(maps, sizes, targets)
        return losses | self.heads.losses(maps, proposals, targets)

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
        found = self.heads.detections(maps, regions, sizes)
        return [_in_image(*one) for one in zip(found, sizes, image_sizes, strict=True)]


def build_mask_rcnn(
    backbone: Backbone, config: RegionConfig, *, num_categories: int, with_masks: bool
) -> RegionDetector:
    """Return Mask R-CNN on a feature pyramid; without masks it is Faster R-CNN.

    Raises:
        ConfigError: The backbone does not give the grids of several strides, and is no ViT of
            usual patches.
    """
    config = config.with_counts(PYRAMID_COUNTS)
    neck = _pyramid(backbone, config)
    sides = [[config.anchor_scale * stride] for stride in neck.strides]
    proposals = build_proposals(neck.num_channels, Anchors(sides, neck.strides), config)
    heads = build_heads(
        RegionPool(neck.pooled, BOX_CELLS),
        start_box_head(TwoMLPHead(neck.num_channels * BOX_CELLS**2, config.box_width)),
        FastRCNNPredictor(config.box_width, num_categories + 1),
        config,
    )
    if with_masks:
        width = neck.num_channels
        heads.mask_roi_pool = RegionPool(neck.pooled, MASK_CELLS)
        heads.mask_head = MaskRCNNHeads(width, [width] * NUM_MASK_LAYERS, dilation=1)
        predictor = start_mask_predictor(MaskRCNNPredictor(width, width, num_categories + 1))
        heads.mask_predictor = _in_float32(predictor)
    return RegionDetector(backbone, neck, proposals, heads)


def _pyramid(backbone: Backbone, config: RegionConfig) -> Pyramid | SimplePyramid:
    if backbone.is_sequence:
        return SimplePyramid(backbone.stride, backbone.num_channels, config.pyramid_channels)
    channels = backbone.stage_channels()
    grids = {stride: channels[stride] for stride in channels if stride >= FINEST_STRIDE}
    return Pyramid(grids, config.pyramid_channels, with_norm=config.pyramid_norm)


def build_proposals(num_channels: int, anchors: Anchors, config: RegionConfig) -> RegionProposals:
    """Return a network that proposes regions on maps of `num_channels`; `config` has no null."""
    return RegionProposals(
        anchors,
        _in_float32(RPNHead(num_channels, anchors.num_per_cell)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=config.num_anchors,
        positive_fraction=0.5,
        pre_nms_top_n={"training": config.num_candidates, "testing": config.num_test_candidates},
        post_nms_top_n={"training": config.num_proposals, "testing": config.num_test_proposals},
        nms_thresh=0.7,
    )


def build_heads(
    pool: RegionPool, head: nn.Module, predictor: FastRCNNPredictor, config: RegionConfig
) -> RegionOutputs:
    """Return the heads that predict each region's class and box.

    Args:
        pool: Module from maps and regions to (R, C, cells, cells).
        head: Module from these to features (R, width).
        predictor: Module from these to logits (R, K) and box deltas (R, 4 K), background first.
    """
    return RegionOutputs(
        pool,
        head,
        _in_float32(start_box_predictor(predictor)),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.num_regions,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=config.score_threshold,
        nms_thresh=0.5,
        detections_per_img=config.num_detections,
    )


def start_box_head(head: TwoMLPHead) -> TwoMLPHead:
    """Return the head with Detectron2's initial weights: uniform, of variance 1 / inputs."""
    for layer in (head.fc6, head.fc7):
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(layer.bias)
    return head


def start_box_predictor(predictor: FastRCNNPredictor) -> FastRCNNPredictor:
    """Return the predictor with Detectron2's initial weights: near zero, no bias."""
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    nn.init.zeros_(predictor.cls_score.bias)
    nn.init.zeros_(predictor.bbox_pred.bias)
    return predictor


def start_mask_predictor(predictor: MaskRCNNPredictor) -> MaskRCNNPredictor:
    """Return the predictor with Detectron2's initial weights: logits near zero, no bias."""
    nn.init.zeros_(predictor.conv5_mask.bias)
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    nn.init.zeros_(predictor.mask_fcn_logits.bias)
    return predictor


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
    """Return the detections of the heads, scaled from the resized image to the original."""
    (height, width), (image_height, image_width) = size, image_size
    scale = [image_width / width, image_height / height] * 2
    boxes = found["boxes"] * found["boxes"].new_tensor(scale)
    masks = None
    if "masks" in found:
        masks = paste_masks(found["masks"], boxes, image_size)  # (D, H, W)
    return Detections(boxes, found["labels"], found["scores"], masks)
