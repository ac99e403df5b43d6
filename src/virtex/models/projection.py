"""What contrasting pictures takes beside a backbone: projections, a slow copy, memories.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020 (linear
projection, momentum copy, queue); Chen et al., "Improved Baselines with Momentum Contrastive
Learning", 2020 (the MLP); Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant
Representations", CVPR 2020 (memory bank). Memories are buffers: part of the state dict.

Shapes: B examples, C channels, D projected size, Q entries of the queue, N entries of the bank.
Whatever is compared is float32 of unit length, so that a product is a cosine.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as to_unit_length

from virtex.models.linear import Linear

Module = TypeVar("Module", bound=nn.Module)


class Projection(nn.Module):
    """Pooled features to the space of comparison: one layer, or two with a ReLU between them."""

    def __init__(self, num_channels: int, dim: int, *, mlp: bool = False) -> None:
        super().__init__()
        hidden = [Linear(num_channels, num_channels), nn.ReLU()] if mlp else []
        self.layers = nn.Sequential(*hidden, Linear(num_channels, dim))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) to (B, D) of unit length."""
        return to_unit_length(self.layers(features).float(), dim=1)


class Queue(nn.Module):
    """The newest Q keys; at first directions drawn at random."""

    keys: Tensor
    """(Q, D) of unit length."""
    position: Tensor
    """() int64: where the next key goes, in the place of the oldest."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", random_directions(size, dim))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Keys (B, D), the oldest first, replace the oldest; any number of them, even above Q."""
        size = len(self.keys)
        places = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.keys[places[-size:]] = keys[-size:]
        self.position.add_(len(keys)).remainder_(size)


class MemoryBank(nn.Module):
    """A moving average of each training image's features; at first directions drawn at random."""

    entries: Tensor
    """(N, D) of unit length."""

    def __init__(self, num_examples: int, dim: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("entries", random_directions(num_examples, dim))

    def draw(self, num_entries: int) -> Tensor:
        """Indices of that many different entries at most, from torch's generator."""
        order = torch.randperm(len(self.entries), device=self.entries.device)
        return order[:num_entries]

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Entries at `index` (B,) become momentum * entry + (1 - momentum) * feature, of length 1.

        Of an example that occurs twice, as where an epoch ends within a batch, the last counts.
        """
        order = torch.arange(len(index), device=index.device)
        last = torch.where(index[:, None] == index, order, -1).amax(1)  # (B,)
        moved = self.entries[index].lerp(features[last], 1 - self.momentum)
        self.entries[index] = to_unit_length(moved, dim=1)


def random_directions(number: int, dim: int) -> Tensor:
    """(number, dim) of unit length, from torch's generator, as weights are."""
    return to_unit_length(torch.randn(number, dim), dim=1)


def similarities(features: Tensor, entries: Tensor) -> Tensor:
    """Cosines (B, Q) of (B, D) with (Q, D), in float32 whatever the precision of the run."""
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ entries.float().T


def momentum_copy(module: Module) -> Module:
    """A copy that no gradient reaches; `update_momentum_copy` moves it."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_momentum_copy(slow: nn.Module, fast: nn.Module, *, momentum: float) -> None:
    """Parameters become momentum * slow + (1 - momentum) * fast; buffers are left alone."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)
