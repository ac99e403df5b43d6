"""Region proposals: anchors, and a network that scores them and moves them onto objects.

Ren et al., "Faster R-CNN" (NeurIPS 2015), section 3.1. Matching, sampling and suppression are
torchvision's, which Detectron2's agree with; anchors and losses are Detectron2's:

- An anchor has exactly the area and the shape that it is meant to have; torchvision rounds its
  corners to whole pixels.
- The loss of offsets is the absolute error; torchvision's is squared below 1/9.
- Both losses are divided by the anchors that are to be sampled, torchvision's by those that were:
  an image with few anchors to sample would weigh more.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""Height of an anchor by its width."""


class Anchors(nn.Module):
    """Float32 anchors of three shapes, with the sides in pixels and the stride of each map.

    They are float32 even under autocast: eight bits of mantissa misplace a box by pixels. Strides
    are given; torchvision infers them from the sizes of images, which is wrong for odd ones.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], strides: Sequence[int]) -> None:
        super().__init__()
        ratios = (ANCHOR_RATIOS,) * len(strides)
        self.generator = AnchorGenerator(tuple(map(tuple, sizes)), ratios)
        self.generator.cell_anchors = [cell_anchors(sides) for sides in sizes]
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors (A, 4) of each image, which are equal."""
        self.generator.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [list(features.shape[2:]) for features in feature_maps]
        levels = self.generator.grid_anchors(grids, [[stride, stride] for stride in self.strides])
        return [torch.cat(levels)] * len(image_list.image_sizes)


def cell_anchors(sides: Sequence[int]) -> Tensor:
    """Return the corners (A, 4) of a cell's anchors around 0: for each ratio, those of all sides.

    Args:
        sides: Square roots of the areas in pixels.
    """
    corners = []
    for ratio in ANCHOR_RATIOS:
        for side in sides:
            width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
            corners.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(corners, device="cpu")  # also where a network is built on "meta"


class RegionProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's network with Detectron2's losses."""

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and of offsets, of anchors that are sampled here.

        Args:
            objectness: (A, 1) logits of all anchors of all images.
            pred_bbox_deltas: (A, 4)
            labels: For each image 1 object, 0 background, or -1 neither.
            regression_targets: For each image the offsets (N, 4), which count where there is an
                object.
        """
        positive, negative = (torch.cat(masks).bool() for masks in self.fg_bg_sampler(labels))
        sampled = positive | negative  # (A,)
        normalizer = self.fg_bg_sampler.batch_size_per_image * len(labels)
        objectness_loss = binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        targets = torch.cat(regression_targets)[positive]
        box_loss = l1_loss(pred_bbox_deltas[positive], targets, reduction="sum")
        return objectness_loss / normalizer, box_loss / normalizer
