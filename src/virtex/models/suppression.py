"""Greedy non-maximum suppression with results of fixed shape, which the host need not wait for.

On a CPU torchvision's function runs inside an operator that gives a mask. On other devices that
function waits for the device; there tensors decide, blocks of boxes one after the other:

1. What a box of an earlier block suppresses is out.
2. Within the block, all boxes at once are kept unless a kept one suppresses them, again and again.
   After n rounds it is decided for each box that ends no chain of n boxes of the block, of which
   each one overlaps with the next. What then is undecided is out.

So the result is that of greedy suppression, exactly, unless such a chain is longer than ROUNDS. A
chain steps from score to lower score, and the boxes of a block are neighbors in score: in a picture
of one smooth ramp the chain is long, but it is cut into many blocks. None was seen in 25 steps of
training on scenes, with 300,000 kept boxes.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

from virtex.models.boxes import pairwise_iou

BLOCK = 256
"""Boxes that are decided at once: 2,000 boxes take 8 blocks of about 70 kernels."""
ROUNDS = 31
"""Rounds within a block; an odd number of them keeps no box that is undecided."""


def kept_boxes(boxes: Tensor, is_present: Tensor, *, threshold: float) -> Tensor:
    """Return which boxes overlap with no better one that is kept itself, (G, N) bool.

    Args:
        boxes: (G, N, 4) in G groups that do not suppress each other, by descending score.
        is_present: (G, N) bool; other boxes are not kept.
        threshold: Largest IoU of two kept boxes.
    """
    if boxes.device.type == "cpu":
        return _kept_on_host(boxes, is_present, threshold)
    return kept_in_rounds(boxes, is_present, threshold=threshold)


@torch.library.custom_op("virtex::kept_boxes", mutates_args=(), device_types="cpu")
def _kept_on_host(boxes: Tensor, is_present: Tensor, threshold: float) -> Tensor:
    kept = torch.zeros_like(is_present)
    for group, present, own in zip(boxes, is_present, kept, strict=True):
        (rows,) = torch.where(present)
        scores = torch.arange(len(rows), 0, -1, dtype=boxes.dtype)
        own[rows[nms(group[rows], scores, threshold)]] = True
    return kept


@_kept_on_host.register_fake
def _(boxes: Tensor, is_present: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(is_present)


def kept_in_rounds(
    boxes: Tensor, is_present: Tensor, *, threshold: float, block: int = BLOCK, rounds: int = ROUNDS
) -> Tensor:
    """Return what `kept_boxes` does, on any device; exactly if `rounds` is `block` or more."""
    kept = is_present[:, :0]
    for start in range(0, boxes.shape[1], block):
        own, present = boxes[:, start : start + block], is_present[:, start : start + block]
        if start:
            overlaps = pairwise_iou(boxes[:, :start], own) > threshold  # (G, start, b)
            present = present & ~(overlaps & kept[..., None]).any(1)
        overlaps = (pairwise_iou(own, own) > threshold).triu(1)  # (G, b, b)
        kept = torch.cat([kept, _kept_in_block(overlaps, present, rounds=rounds)], dim=1)
    return kept


def _kept_in_block(suppresses: Tensor, is_present: Tensor, *, rounds: int) -> Tensor:
    """Return the kept boxes (G, b), of which the first index of (G, b, b) suppresses the second."""
    present = is_present[:, None].float()  # (G, 1, b)
    kept, weights = present, suppresses.float()
    for _ in range(rounds):
        kept = torch.baddbmm(present, kept, weights, alpha=-1).relu()
    return kept[:, 0] > 0
