"""Region proposals: anchors, and a network that scores them and moves them onto objects.

Ren et al., "Faster R-CNN" (NeurIPS 2015), section 3.1. Matching, sampling and suppression are by
torchvision's rules, which Detectron2's agree with, in tensors of fixed shapes; anchors and losses
are Detectron2's:

- An anchor has exactly the area and the shape that it is meant to have; torchvision rounds its
  corners to whole pixels.
- The loss of offsets is the absolute error; torchvision's is squared below 1/9.
- Both losses are divided by the anchors that are to be sampled, torchvision's by those that were:
  an image with few anchors to sample would weigh more.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from virtex.models.boxes import clipped, moved, offsets_between
from virtex.models.region_targets import Targets, match, random_keys, sample
from virtex.models.suppression import kept_boxes

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""Height of an anchor by its width."""
STREAM = 0
"""Stream of the random numbers by which anchors are sampled."""


class Anchors(nn.Module):
    """Float32 anchors of three shapes, with the sides in pixels and the stride of each map.

    They are float32 even under autocast: eight bits of mantissa misplace a box by pixels. Strides
    are given; torchvision infers them from the sizes of images, which is wrong for odd ones.
    """

    def __init__(self, sizes: Sequence[Sequence[int]], strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.num_per_cell = len(ANCHOR_RATIOS) * len(sizes[0])
        for level, sides in enumerate(sizes):
            self.register_buffer(f"cell_{level}", cell_anchors(sides), persistent=False)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return the anchors (A, 4) of each image, which are equal."""
        return [torch.cat(self.levels(feature_maps))] * len(image_list.image_sizes)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors (h * w * num_per_cell, 4) of each map, by row, column and shape."""
        anchors = []
        for level, (features, stride) in enumerate(zip(maps, self.strides, strict=True)):
            height, width = features.shape[2:]
            cell = self.get_buffer(f"cell_{level}")  # (num_per_cell, 4)
            y, x = (torch.arange(side, device=cell.device) * stride for side in (height, width))
            corners = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)  # (h, w, 2)
            anchors.append((corners.repeat(1, 1, 2)[:, :, None] + cell).view(-1, 4))
        return anchors


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


class Proposals(NamedTuple):
    """N proposals of each image."""

    boxes: Tensor
    """(B, N, 4)"""
    is_present: Tensor
    """(B, N) bool; other boxes fill the shape."""
    anchors: Tensor
    """Indices (B, N) of the anchors that were moved."""


class RegionProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's network; `propose` takes the place of its forward pass where it learns."""

    def propose(
        self, maps: Mapping[str, Tensor], sizes: Tensor, targets: Targets
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """Return as many proposals as for training, without gradient, and the scalar losses.

        Args:
            maps: Maps (B, C, h, w) by name.
            sizes: Heights and widths (B, 2) of the images without padding.
        """
        levels = self.anchor_generator.levels(list(maps.values()))
        anchors, counts = torch.cat(levels), [len(level) for level in levels]
        logits, deltas = concat_box_prediction_layers(*self.head(list(maps.values())))
        logits = logits.view(len(sizes), -1)  # (B, A)
        deltas = deltas.view(*logits.shape, 4)
        with torch.no_grad():
            proposals = self._proposals(logits, deltas, anchors, counts=counts, sizes=sizes)
        return proposals, self.losses(logits, deltas, anchors, targets)

    def losses(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """Return the scalar losses of anchors that are sampled here.

        Args:
            logits: (B, A) of being an object.
            deltas: (B, A, 4) predicted offsets.
            anchors: (A, 4)
        """
        number = self.fg_bg_sampler.batch_size_per_image
        limits = self.proposal_matcher
        matches = match(
            targets,
            anchors[None],
            low=limits.low_threshold,
            high=limits.high_threshold,
            force=True,
        )
        places = torch.arange(len(anchors), device=anchors.device)
        chosen = sample(
            matches,
            random_keys(targets.seeds, places, stream=STREAM),
            number=number,
            positive_fraction=self.fg_bg_sampler.positive_fraction,
        )
        learned = chosen.is_positive[..., None]  # (B, S, 1)
        found = matches.objects.gather(1, chosen.indices)
        offsets = offsets_between(anchors[chosen.indices], rows_of(targets.boxes, found))
        errors = rows_of(deltas, chosen.indices) - torch.where(learned, offsets, 0)
        entropies = binary_cross_entropy_with_logits(
            logits.gather(1, chosen.indices), chosen.is_positive.to(logits.dtype), reduction="none"
        )
        normalizer = number * len(logits)
        return {
            "objectness": (entropies * chosen.is_sampled).sum() / normalizer,
            "proposal_box": (errors.abs() * learned).sum() / normalizer,
        }

    def _proposals(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, *, counts: list[int], sizes: Tensor
    ) -> Proposals:
        """Return the best candidates of all maps, which do not overlap much on one map.

        Args:
            counts: Numbers of anchors of each map.
        """
        most = min(self._pre_nms_top_n["training"], max(counts))
        ranked, chosen, start = [], [], 0
        for level in logits.split(counts, dim=1):
            best, places = level.topk(min(most, level.shape[1]), dim=1)
            missing = (0, most - best.shape[1])
            ranked.append(pad(best, missing, value=-math.inf))
            chosen.append(pad(places + start, missing))
            start += level.shape[1]
        scores, places = torch.cat(ranked, dim=1), torch.cat(chosen, dim=1)  # (B, L * k)
        boxes = clipped(moved(anchors[places], rows_of(deltas, places)), sizes)
        has_area = (boxes[..., 2:] - boxes[..., :2] >= self.min_size).all(2)
        is_present = has_area & (scores > -math.inf)
        kept = kept_boxes(
            boxes.view(-1, most, 4), is_present.view(-1, most), threshold=self.nms_thresh
        )
        scores = torch.where(kept.view_as(scores), scores, -math.inf)
        number = min(self._post_nms_top_n["training"], scores.shape[1])
        scores, order = scores.topk(number, dim=1)
        return Proposals(rows_of(boxes, order), scores > -math.inf, places.gather(1, order))


def rows_of(values: Tensor, indices: Tensor) -> Tensor:
    """Return the rows (B, N, D) of values (B, M, D) at indices (B, N) of each image."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[2]))
