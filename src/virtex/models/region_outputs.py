"""Outputs for each region: its class, its box and its mask, and their losses.

He et al., "Mask R-CNN" (ICCV 2017). Matching, sampling and suppression are torchvision's, which
Detectron2's agree with; losses and masks are Detectron2's: the loss of offsets is the absolute
error (torchvision's is squared below 1/9), and for masks see region_masks.py.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference

from virtex.models.region_masks import mask_loss

Maps = Mapping[str, Tensor]
"""Maps (B, C, h, w) by name."""


class RegionOutputs(RoIHeads):  # type: ignore[misc]
    """torchvision's heads; `losses` and `detections` take the place of its forward pass."""

    def losses(
        self, maps: Maps, regions: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the scalar losses of regions that are sampled here, with the ground truth's.

        Args:
            regions: For each image the corners (N, 4) of the proposals.
            targets: See `RegionDetector`.
        """
        regions, matches, labels, offsets = self.select_training_samples(regions, targets)
        logits, deltas = self._box_outputs(maps, regions)
        classes = torch.cat(labels)  # (R,)
        losses = {
            "classifier": cross_entropy(logits, classes),
            "box": box_loss(deltas, torch.cat(offsets), classes),
        }
        if self.has_mask():
            shown = [rows > 0 for rows in labels]
            regions = [boxes[rows] for boxes, rows in zip(regions, shown, strict=True)]
            losses["mask"] = mask_loss(
                self._mask_logits(maps, regions),
                regions=regions,
                masks=[target["masks"] for target in targets],
                matches=[found[rows] for found, rows in zip(matches, shown, strict=True)],
                labels=classes[classes > 0],
            )
        return losses

    def detections(
        self, maps: Maps, regions: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Return boxes (D, 4), labels, scores (D,) and masks (D, cells, cells), if any, by image.

        Args:
            regions: For each image the corners (N, 4) of the proposals.
            sizes: Heights and widths of the images.
        """
        outputs = self._box_outputs(maps, regions)
        boxes, scores, labels = self.postprocess_detections(*outputs, regions, sizes)
        found = [
            {"boxes": one, "scores": confidences, "labels": classes}
            for one, confidences, classes in zip(boxes, scores, labels, strict=True)
        ]
        if self.has_mask():
            masks = maskrcnn_inference(self._mask_logits(maps, boxes), labels)
            for one, in_boxes in zip(found, masks, strict=True):
                one["masks"] = in_boxes[:, 0]
        return found

    def _box_outputs(self, maps: Maps, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (R, K) and box deltas (R, 4 K) of all regions."""
        return self.box_predictor(self.box_head(self.box_roi_pool(maps, regions)))

    def _mask_logits(self, maps: Maps, regions: Sequence[Tensor]) -> Tensor:
        """Return logits (R, K, cells, cells) of all regions."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(maps, regions)))


def box_loss(deltas: Tensor, offsets: Tensor, labels: Tensor) -> Tensor:
    """Return the absolute error of the offsets of objects, summed, per sampled region.

    Args:
        deltas: (R, 4 K) for each class.
        offsets: (R, 4) from regions to objects.
        labels: (R,) classes, 0 for the background, which has no offset.
    """
    (rows,) = torch.where(labels > 0)
    found = deltas.reshape(len(labels), -1, 4)[rows, labels[rows]]  # (P, 4)
    return l1_loss(found, offsets[rows], reduction="sum") / len(labels)
