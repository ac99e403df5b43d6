"""Losses of a detector by torchvision's modules, image by image, as shapes happen to be.

The modules match, sample and suppress; the losses are Detectron2's, written down once more.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, l1_loss
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from virtex.models.region_heads import RegionConfig, RegionDetector
from virtex.models.region_masks import mask_targets
from virtex.models.region_pool import in_rows


class Proposals(RegionProposalNetwork):
    """Both losses are sums, divided by the anchors that are to be sampled."""

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        positive, negative = (torch.cat(masks).bool() for masks in self.fg_bg_sampler(labels))
        sampled = positive | negative
        normalizer = self.fg_bg_sampler.batch_size_per_image * len(labels)
        entropies = binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        targets = torch.cat(regression_targets)[positive]
        errors = l1_loss(pred_bbox_deltas[positive], targets, reduction="sum")
        return entropies / normalizer, errors / normalizer


def region_losses(
    detector: RegionDetector,
    config: RegionConfig,
    images: Tensor,
    sizes: list[tuple[int, int]],
    targets: list[dict[str, Tensor]],
) -> dict[str, Tensor]:
    """The losses by name.

    Args:
        config: Its options, without null.
        targets: For each image boxes (M, 4), labels (M,) and masks (M, H, W).
    """
    maps = detector.maps(images)
    network = Proposals(
        detector.proposals.anchor_generator, detector.proposals.head, 0.7, 0.3,
        config.num_anchors, 0.5, {"training": config.num_candidates},
        {"training": config.num_proposals}, 0.7,
    ).train()  # fmt: skip
    regions, found = network(ImageList(images, sizes), maps, targets)
    ours = detector.heads
    heads = RoIHeads(
        None, None, None, 0.5, 0.5, config.num_regions, 0.25, None, 0.0, 0.5, 100
    )  # fmt: skip
    regions, matches, labels, offsets = heads.select_training_samples(regions, targets)
    rows, classes = in_rows(regions), torch.cat(labels)
    logits, deltas = ours.box_predictor(ours.box_head(ours.box_roi_pool(maps, rows)))
    (shown,) = torch.where(classes > 0)
    moves = deltas.reshape(len(classes), -1, 4)[shown, classes[shown]]
    errors = l1_loss(moves, torch.cat(offsets)[shown], reduction="sum")
    losses = {
        "objectness": found["loss_objectness"],
        "proposal_box": found["loss_rpn_box_reg"],
        "classifier": cross_entropy(logits, classes),
        "box": errors / len(classes),
    }
    if ours.has_mask():
        masks = ours.mask_predictor(ours.mask_head(ours.mask_roi_pool(maps, rows[shown])))
        cells = [
            mask_targets(target["masks"], boxes[own > 0], objects[own > 0], num_cells=28)
            for target, boxes, objects, own in zip(targets, regions, matches, labels, strict=True)
            if len(target["labels"])
        ]
        logits = masks[torch.arange(len(shown)), classes[shown]]
        losses["mask"] = binary_cross_entropy_with_logits(logits, torch.cat(cells).float())
    return losses
