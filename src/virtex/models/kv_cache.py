"""What a decoder remembers from step to step, so that a step computes one token per beam.

B images are decoded at once, each with K beams. Self-attention's keys and values grow by one
position a step and belong to a beam; those of cross-attention come from the grid, are computed
once, and belong to an image: its beams share them.
"""

from typing import Literal

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one decoder layer; A heads of d channels, N grid cells, S positions."""

    def __init__(
        self, grid_keys: Tensor, grid_values: Tensor, *, num_beams: int, num_steps: int
    ) -> None:
        """Reserve S steps for each beam; `grid_keys` and `grid_values` are (B, A, N, d)."""
        self.grid_keys, self.grid_values = grid_keys, grid_values
        batch, heads, _, channels = grid_keys.shape
        # (B, K, A, S, d)
        self.keys = grid_keys.new_zeros(batch, num_beams, heads, num_steps, channels)
        self.values = torch.zeros_like(self.keys)


class KeyValueCache:
    """Keys and values of all layers for B images with K beams each; changed in place.

    `Captioner.start` makes one and `Captioner.step` extends it by a token per beam. Between two
    steps one may call `reorder`, `branch`, `keep` and `drop_start`.
    """

    def __init__(
        self, layers: list[LayerCache], *, direction: Literal["forward", "backward"]
    ) -> None:
        self.layers, self.direction = layers, direction
        self.first, self.length = 0, 0

    @property
    def batch_size(self) -> int:
        """B, the images still being decoded."""
        return self.layers[0].keys.shape[0]

    @property
    def num_beams(self) -> int:
        """K, the beams of each image."""
        return self.layers[0].keys.shape[1]

    @property
    def position(self) -> int:
        """The position that the next token takes; positions count from the oldest kept token."""
        return self.length - self.first

    def extend(self) -> slice:
        """Make room for one more token; the kept positions, of which the last is that token's."""
        self.length += 1
        return slice(self.first, self.length)

    def reorder(self, parents: Tensor) -> None:
        """Let beam k of image b continue what was beam `parents[b, k]` of the same image.

        Args:
            parents: (B, K) int64, each in 0..K-1.
        """
        images = torch.arange(self.batch_size, device=parents.device)[:, None]
        kept = slice(self.first, self.length)
        for layer in self.layers:
            for remembered in (layer.keys, layer.values):
                remembered[:, :, :, kept] = remembered[images, parents, :, kept]

    def branch(self, parents: Tensor) -> None:
        """Go on with K' beams, of which k continues what was beam `parents[k]` (K',) everywhere."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[:, parents], layer.values[:, parents]

    def keep(self, images: Tensor) -> None:
        """Go on with `images` (B',) int64 alone, in that order: the others are finished."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[images], layer.values[images]
            layer.grid_keys, layer.grid_values = layer.grid_keys[images], layer.grid_values[images]

    def drop_start(self) -> None:
        """Forget the oldest token, so that the next one takes its position.

        The released beam search fed the start token at its first step only.
        """
        self.first += 1
