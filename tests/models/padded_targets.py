"""The ground truth of a batch, from that of each image."""

import torch
from torch import Tensor

from virtex.models.region_targets import Targets

NUM_OBJECTS = 4


def padded(targets: list[dict[str, Tensor]], *, seed: int = 0) -> Targets:
    """Targets of images with boxes (M, 4), labels (M,) and perhaps masks (M, H, W)."""
    batch = {
        name: torch.stack([_padded(target[name]) for target in targets]) for name in targets[0]
    }
    masks = batch["masks"].__getitem__ if "masks" in batch else None
    seeds = seed + torch.arange(len(targets))
    return Targets(batch["boxes"], batch["labels"], seeds, masks)


def _padded(values: Tensor) -> Tensor:
    return torch.cat([values, values.new_zeros(NUM_OBJECTS - len(values), *values.shape[1:])])
