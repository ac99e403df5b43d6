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
        # What a beam remembers is one piece of memory, so that beams are moved fast; they are moved
        # into the memory that they had before the last move, since new memory costs more.
        self._memory = grid_keys.new_empty(batch, num_beams, num_steps, 2, heads, channels)
        self._spare = self._memory[:0]

    @property
    def keys(self) -> Tensor:
        """(B, K, A, S, d), to be read and written."""
        return self._memory[:, :, :, 0].transpose(2, 3)

    @property
    def values(self) -> Tensor:
        """(B, K, A, S, d), to be read and written."""
        return self._memory[:, :, :, 1].transpose(2, 3)

    def take(self, beams: Tensor, kept: slice) -> None:
        """Go on with `beams` (B', K'), numbers in 0..B*K-1, and what they keep of their steps."""
        old = self._memory.flatten(0, 1)  # (B*K, S, 2, A, d)
        if self._spare.shape[:2] != beams.shape:
            self._spare = self._memory.new_empty(*beams.shape, *old.shape[1:])
        new = self._spare.flatten(0, 1)
        torch.index_select(old[:, kept], 0, beams.flatten(), out=new[:, kept])
        self._memory, self._spare = self._spare, self._memory


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
            parents: (B, K') int64, each in 0..K-1; there are K' beams from now on.
        """
        images = torch.arange(self.batch_size, device=parents.device)[:, None]
        self._take(self.num_beams * images + parents)

    def branch(self, parents: Tensor) -> None:
        """Go on with K' beams, of which k continues what was beam `parents[k]` (K',) everywhere."""
        self.reorder(parents.expand(self.batch_size, -1))

    def keep(self, images: Tensor) -> None:
        """Go on with `images` (B',) int64 alone, in that order: the others are finished."""
        beams = torch.arange(self.num_beams, device=images.device)
        self._take(self.num_beams * images[:, None] + beams)
        for layer in self.layers:
            layer.grid_keys, layer.grid_values = layer.grid_keys[images], layer.grid_values[images]

    def drop_start(self) -> None:
        """Forget the oldest token, so that the next one takes its position.

        The released beam search fed the start token at its first step only.
        """
        self.first += 1

    def _take(self, beams: Tensor) -> None:
        for layer in self.layers:
            layer.take(beams, slice(self.first, self.length))
