"""What a detector learns from: the ground truth, and which of it each anchor or region is to find.

Ren et al., "Faster R-CNN" (NeurIPS 2015), section 3.1.2: matching by IoU, and a random sample of
fixed size. The rules are torchvision's and Detectron2's. The shapes are fixed, so that the host
never waits for the device: what is not there is masked, not left out.

The random numbers are a function of an image's seed and of what is sampled, without state. So a
sample depends neither on the process, nor on the image's place in the batch, nor on the rest of it.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from virtex.models.boxes import pairwise_iou

LOW_BITS = 0xFFFF_FFFF
KEYS = 1 << 32
"""Number of random keys."""
FACTORS = 0x21F0_AAAD, 0x735A_2D97
"""Multipliers of a 32-bit mixer of low bias; below 2**31, so that no product overflows."""


class Targets(NamedTuple):
    """The ground truth of B images, padded to M objects each."""

    boxes: Tensor
    """(B, M, 4)"""
    labels: Tensor
    """(B, M) int64 from 1; 0 for padding."""
    seeds: Tensor
    """Random seeds (B,) int64 below 2**31 of the sampling in each image."""
    masks: Callable[[int], Tensor] | None = None
    """Function from an image's index to its masks (M, H, W) uint8, if they are learned."""


class Matches(NamedTuple):
    """For each of N boxes of B images, all (B, N)."""

    objects: Tensor
    """Index of the object of highest IoU; of any, where there is none."""
    is_positive: Tensor
    is_negative: Tensor

    def among(self, is_present: Tensor) -> Self:
        """Return the matches in which boxes that are not present are neither kind."""
        return self._replace(
            is_positive=self.is_positive & is_present, is_negative=self.is_negative & is_present
        )


class Sample(NamedTuple):
    """S boxes of each image: the positive ones, then the negative ones, then any. All (B, S)."""

    indices: Tensor
    is_positive: Tensor
    is_sampled: Tensor
    """Whether it is positive or negative; nothing is learned from the others."""


def match(targets: Targets, boxes: Tensor, *, low: float, high: float, force: bool) -> Matches:
    """Return which boxes (B, N, 4), or (1, N, 4) for all images, show an object.

    Args:
        low: IoU below which a box is negative.
        high: IoU from which on it is positive.
        force: Whether the boxes that overlap with an object most are positive at any IoU.
    """
    present = (targets.labels > 0)[..., None]  # (B, M, 1)
    overlaps = torch.where(present, pairwise_iou(targets.boxes, boxes), -1.0)  # (B, M, N)
    highest, objects = overlaps.max(1)
    is_positive = highest >= high
    if force:
        is_best = present & (overlaps == overlaps.amax(2, keepdim=True))
        is_positive = is_positive | is_best.any(1)
    return Matches(objects, is_positive, (highest < low) & ~is_positive)


def sample(matches: Matches, keys: Tensor, *, number: int, positive_fraction: float) -> Sample:
    """Return a random sample of boxes of each image: `number` of them, if there are as many.

    At most `positive_fraction` of the number are positive; negative ones take the other places.

    Args:
        keys: (B, N) random numbers from `random_keys`; the highest are taken.
    """
    size = keys.shape[1]
    positive_keys = torch.where(matches.is_positive, keys, -1)
    highest, places = positive_keys.topk(min(int(number * positive_fraction), size), dim=1)
    ranks = torch.where(matches.is_negative, keys, -1)  # (B, N)
    others = ranks.gather(1, places)
    ranks = ranks.scatter(1, places, torch.where(highest >= 0, highest + KEYS, others))
    ranks, indices = ranks.topk(min(number, size), dim=1)  # (B, S)
    return Sample(indices, ranks >= KEYS, ranks >= 0)


def random_keys(seeds: Tensor, places: Tensor, *, stream: int) -> Tensor:
    """Return a random number (B, N) from 0 to KEYS for each place (N,) or (B, N) of each image.

    Args:
        seeds: (B,) int64 from 0 to below 2**31.
        places: int64 from 0 to below KEYS.
        stream: Small number that sets independent samples of an image apart.
    """
    return _mixed(_mixed(places) ^ _mixed(seeds + stream)[:, None])


def _mixed(values: Tensor) -> Tensor:
    """Return 32-bit integers in int64, mixed by two rounds of multiply and shift."""
    for factor in FACTORS:
        values = ((values ^ (values >> 16)) * factor) & LOW_BITS
    return values ^ (values >> 15)
