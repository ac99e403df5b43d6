"""Parts of contrastive learning from images: projections, momentum copies, queue, memory bank.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020 (linear
projection, momentum copy, queue); Chen et al., "Improved Baselines with Momentum Contrastive
Learning", 2020 (the MLP); Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant
Representations", CVPR 2020 (memory bank). Queue and bank are buffers, part of the state dict.

Shapes: B examples, C channels, D projected size, Q entries of the queue, N entries of the bank.
Features are float32 unit vectors, so that a product is a cosine similarity.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as to_unit_length

from virtex.models.linear import Linear

Module = TypeVar("Module", bound=nn.Module)


class Projection(nn.Module):
    """Projection of pooled features: one layer, or two with a ReLU between them."""

    def __init__(self, num_channels: int, dim: int, *, mlp: bool = False) -> None:
        super().__init__()
        hidden = [Linear(num_channels, num_channels), nn.ReLU()] if mlp else []
        self.layers = nn.Sequential(*hidden, Linear(num_channels, dim))

    def forward(self, features: Tensor) -> Tensor:
        """Project features (B, C) to unit vectors (B, D)."""
        return to_unit_length(self.layers(features).float(), dim=1)


class Queue(nn.Module):
    """The newest Q keys; initially random directions."""

    keys: Tensor
    """(Q, D) unit vectors."""
    position: Tensor
    """() int64 index of the oldest key, which the next one replaces."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", random_directions(size, dim))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Replace the oldest keys by these (B, D), in order; B may exceed Q."""
        size = len(self.keys)
        indices = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.keys[indices[-size:]] = keys[-size:]
        self.position.add_(len(keys)).remainder_(size)


class MemoryBank(nn.Module):
    """Moving averages of the training images' features; initially random directions."""

    entries: Tensor
    """(N, D) unit vectors."""

    def __init__(self, num_examples: int, dim: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("entries", random_directions(num_examples, dim))

    def draw(self, num_entries: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the indices of at most `num_entries` distinct entries.

        Args:
            generator: Random generator on the device; None for torch's global one.
        """
        device = self.entries.device
        return torch.randperm(len(self.entries), device=device, generator=generator)[:num_entries]

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Set entries `index` (B,) to momentum * entry + (1 - momentum) * feature, normalized.

        If an example occurs twice, as in a batch across two epochs, the last feature counts.
        """
        order = torch.arange(len(index), device=index.device)
        last = torch.where(index[:, None] == index, order, -1).amax(1)  # (B,)
        moved = self.entries[index].lerp(features[last], 1 - self.momentum)
        self.entries[index] = to_unit_length(moved, dim=1)


def random_directions(number: int, dim: int) -> Tensor:
    """Return random unit vectors (number, dim), drawn by torch's generator like weights."""
    return to_unit_length(torch.randn(number, dim), dim=1)


def similarities(features: Tensor, entries: Tensor) -> Tensor:
    """Return the cosine similarities (B, Q) of unit vectors (B, D) and (Q, D), in float32."""
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ entries.float().T


def momentum_copy(module: Module) -> Module:
    """Return a copy without gradients, for `update_momentum_copy`."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_momentum_copy(slow: nn.Module, fast: nn.Module, *, momentum: float) -> None:
    """Set the parameters to momentum * slow + (1 - momentum) * fast, and leave buffers alone."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)
