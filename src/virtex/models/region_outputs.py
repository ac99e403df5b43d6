"""Outputs for each region: its class, its box and its mask, and their losses.

He et al., "Mask R-CNN" (ICCV 2017). Matching, sampling and suppression are by torchvision's rules,
which Detectron2's agree with; losses and masks are Detectron2's: the loss of offsets is the
absolute error (torchvision's is squared below 1/9), and for masks see region_masks.py.

Losses are sums over regions, divided by the number of regions that are sampled, or of those with an
object for masks; in training the mean of that number over processes, so that the mean of the
losses over processes is that of all regions. Of accumulated pieces each has its own numbers, which
are not known before its forward pass; those of sampled regions are equal, unless there are few.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference

from virtex import distributed
from virtex.models.batch_norm import batch_norms
from virtex.models.boxes import offsets_between
from virtex.models.fixed_shapes import may_read
from virtex.models.region_masks import mask_loss, mask_targets
from virtex.models.region_pool import in_rows
from virtex.models.region_proposals import Proposals, rows_of
from virtex.models.region_targets import Targets, match, random_keys, sample

Maps = Mapping[str, Tensor]
"""Maps (B, C, h, w) by name."""
STREAM = 1
"""Stream of the random numbers by which regions are sampled."""
IGNORED = -100
"""Class of a region that is not learned."""


class Regions(NamedTuple):
    """S sampled regions of each image, those with an object first; without gradient."""

    boxes: Tensor
    """(B, S, 4)"""
    objects: Tensor
    """Index (B, S) of the object in each region."""
    labels: Tensor
    """(B, S) classes, 0 for the background, and IGNORED where there was no more to sample."""
    offsets: Tensor
    """(B, S, 4) from regions to objects, 0 where there is none."""


class RegionOutputs(RoIHeads):  # type: ignore[misc]
    """torchvision's heads; `losses` and `detections` take the place of its forward pass."""

    def losses(self, maps: Maps, proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        """Return the scalar losses of regions that are sampled here, with the ground truth's."""
        with torch.no_grad():
            regions = self._sampled(proposals, targets)
            num_regions, num_objects = self._counts(regions)
        rows, labels = in_rows(regions.boxes), regions.labels.flatten()
        offsets = regions.offsets.flatten(0, 1)
        if may_read(labels) and not batch_norms(self.box_head):  # BatchNorm sees all
            rows, labels, offsets = (x[labels != IGNORED] for x in (rows, labels, offsets))
        logits, deltas = self._box_outputs(maps, rows)
        entropies = cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        losses = {
            "classifier": entropies / num_regions,
            "box": box_loss(deltas, offsets, labels) / num_regions,
        }
        if self.has_mask():
            losses["mask"] = self._mask_loss(maps, regions, targets) / num_objects
        return losses

    def _sampled(self, proposals: Proposals, targets: Targets) -> Regions:
        """Return regions sampled from the proposals and the ground truth.

        If there are fewer than requested, some are there twice but learned once, so that all have
        the batch's usual statistics.
        """
        num_objects = targets.labels.shape[1]
        boxes = torch.cat([proposals.boxes, targets.boxes], dim=1)  # (B, N + M, 4)
        is_present = torch.cat([proposals.is_present, targets.labels > 0], dim=1)
        own = torch.arange(num_objects, device=boxes.device).expand(len(boxes), -1)
        places = torch.cat([2 * proposals.anchors, 2 * own + 1], dim=1)
        limits, sampler = self.proposal_matcher, self.fg_bg_sampler
        matches = match(
            targets, boxes, low=limits.low_threshold, high=limits.high_threshold, force=False
        )
        chosen = sample(
            matches.among(is_present),
            random_keys(targets.seeds, places, stream=STREAM),
            number=sampler.batch_size_per_image,
            positive_fraction=sampler.positive_fraction,
        )
        indices = repeated(chosen.indices, chosen.is_sampled)
        boxes, objects = rows_of(boxes, indices), matches.objects.gather(1, indices)
        labels = torch.where(chosen.is_positive, targets.labels.gather(1, objects), 0)
        offsets = offsets_between(boxes, rows_of(targets.boxes, objects), self.box_coder.weights)
        return Regions(
            boxes,
            objects,
            torch.where(chosen.is_sampled, labels, IGNORED),
            torch.where(chosen.is_positive[..., None], offsets, 0),
        )

    def _counts(self, regions: Regions) -> tuple[Tensor, Tensor]:
        """Return the numbers of regions and of objects in them, at least 1 over all processes.

        In training they are means over the processes, in evaluation this one's own.
        """
        labels, share = regions.labels, 1
        numbers = torch.stack([(labels != IGNORED).sum(), (labels > 0).sum()]).float()
        if self.training:
            numbers, share = distributed.total(numbers), distributed.world_size()
        num_regions, num_objects = (numbers.clamp(min=1) / share).unbind()
        return num_regions, num_objects

    def _mask_loss(self, maps: Maps, regions: Regions, targets: Targets) -> Tensor:
        """Return the loss of masks, summed over the regions with an object."""
        assert targets.masks is not None, "a mask head needs masks"
        sampler = self.fg_bg_sampler
        most = int(sampler.batch_size_per_image * sampler.positive_fraction)
        boxes, objects, labels, _ = (values[:, :most] for values in regions)
        is_learned = labels > 0  # (B, P)
        boxes = torch.where(is_learned[..., None], boxes, 0)
        chosen = torch.where(is_learned.flatten())[0] if may_read(labels) else slice(None)
        labels = labels.flatten()[chosen].clamp(min=0)
        logits = self._mask_logits(maps, in_rows(boxes)[chosen])
        found = [
            mask_targets(targets.masks(index), *one, num_cells=logits.shape[-1])
            for index, one in enumerate(zip(boxes, objects, strict=True))
        ]
        return mask_loss(
            logits,
            torch.cat(found)[chosen],
            labels=labels,
            is_learned=is_learned.flatten()[chosen],
        )

    def detections(
        self, maps: Maps, regions: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Return boxes (D, 4), labels, scores (D,) and masks (D, cells, cells), if any, by image.

        Args:
            regions: For each image the corners (N, 4) of the proposals.
            sizes: Heights and widths of the images.
        """
        outputs = self._box_outputs(maps, in_rows(regions))
        boxes, scores, labels = self.postprocess_detections(*outputs, regions, sizes)
        found = [
            {"boxes": one, "scores": confidences, "labels": classes}
            for one, confidences, classes in zip(boxes, scores, labels, strict=True)
        ]
        if self.has_mask():
            masks = maskrcnn_inference(self._mask_logits(maps, in_rows(boxes)), labels)
            for one, in_boxes in zip(found, masks, strict=True):
                one["masks"] = in_boxes[:, 0]
        return found

    def _box_outputs(self, maps: Maps, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (R, K) and box deltas (R, 4 K) of regions (R, 5)."""
        return self.box_predictor(self.box_head(self.box_roi_pool(maps, regions)))

    def _mask_logits(self, maps: Maps, regions: Tensor) -> Tensor:
        """Return logits (R, K, cells, cells) of regions (R, 5)."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, regions)))


def box_loss(deltas: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
    """Return the absolute error of the offsets of objects, summed over regions.

    Args:
        deltas: (R, 4 K) for each class.
        offsets: (R, 4) from regions to objects.
        labels: (R,) classes; 0 for the background, which has no offset, below 0 if not learned.
    """
    classes = labels.clamp(min=0)[:, None, None].expand(-1, 1, 4)
    found = deltas.view(len(labels), -1, 4).gather(1, classes)[:, 0]  # (R, 4)
    return ((found - offsets).abs() * (labels > 0)[:, None]).sum()


def repeated(indices: Tensor, is_sampled: Tensor) -> Tensor:
    """Return indices (B, S) in which the first, sampled ones take the places of the others too."""
    places = torch.arange(indices.shape[1], device=indices.device)
    number = is_sampled.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
    return indices.gather(1, places % number)
