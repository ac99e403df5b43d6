"""The cache of a decoder's keys and values, with which a step computes one token per beam.

B images are decoded at once, each with K beams. The keys and values of self-attention belong to a
beam and grow by one position in each step. Those of attention to the grid belong to an image, whose
beams share them, and are computed once.
"""

from typing import Literal

import torch
from torch import Tensor


class LayerCache:
    """Keys and values of one decoder layer with A heads of d channels, N cells and S steps."""

    def __init__(
        self, grid_keys: Tensor, grid_values: Tensor, *, num_beams: int, num_steps: int
    ) -> None:
        """Reserve memory for S steps of each beam; grid keys and values are (B, A, N, d)."""
        self.grid_keys, self.grid_values = grid_keys, grid_values
        batch, heads, _, channels = grid_keys.shape
        # Each beam is contiguous in memory, so that reordering is fast. Two buffers take turns,
        # since allocating a new one costs more.
        self._memory = grid_keys.new_empty(batch, num_beams, num_steps, 2, heads, channels)
        self._spare = self._memory[:0]

    @property
    def keys(self) -> Tensor:
        """Writable view (B, K, A, S, d) of the keys."""
        return self._memory[:, :, :, 0].transpose(2, 3)

    @property
    def values(self) -> Tensor:
        """Writable view (B, K, A, S, d) of the values."""
        return self._memory[:, :, :, 1].transpose(2, 3)

    def take(self, beams: Tensor, kept: slice) -> None:
        """Continue with `beams` (B', K'), indices in 0..B*K-1, and their `kept` steps."""
        old = self._memory.flatten(0, 1)  # (B*K, S, 2, A, d)
        if self._spare.shape[:2] != beams.shape:
            self._spare = self._memory.new_empty(*beams.shape, *old.shape[1:])
        new = self._spare.flatten(0, 1)
        torch.index_select(old[:, kept], 0, beams.flatten(), out=new[:, kept])
        self._memory, self._spare = self._spare, self._memory


class KeyValueCache:
    """Keys and values of all layers for B images with K beams each, changed in place.

    `Captioner.start` creates a cache and `Captioner.step` extends it by a token per beam.
    `reorder`, `keep` and `drop_start` may be called between two steps.
    """

    def __init__(
        self, layers: list[LayerCache], *, direction: Literal["forward", "backward"]
    ) -> None:
        self.layers, self.direction = layers, direction
        self.first, self.length = 0, 0

    @property
    def batch_size(self) -> int:
        """Number B of images that are still decoded."""
        return self.layers[0].keys.shape[0]

    @property
    def num_beams(self) -> int:
        """Number K of beams of each image."""
        return self.layers[0].keys.shape[1]

    @property
    def position(self) -> int:
        """Position of the next token, counted from the oldest kept one."""
        return self.length - self.first

    def extend(self) -> slice:
        """Add a position for one more token, and return all kept positions."""
        self.length += 1
        return slice(self.first, self.length)

    def reorder(self, parents: Tensor) -> None:
        """Continue with K' beams, the k-th of image b from its beam `parents[b, k]` (B, K')."""
        images = torch.arange(self.batch_size, device=parents.device)[:, None]
        self._take(self.num_beams * images + parents)

    def keep(self, images: Tensor) -> None:
        """Continue with the images of these indices (B',) only, in this order."""
        beams = torch.arange(self.num_beams, device=images.device)
        self._take(self.num_beams * images[:, None] + beams)
        for layer in self.layers:
            layer.grid_keys, layer.grid_values = layer.grid_keys[images], layer.grid_values[images]

    def drop_start(self) -> None:
        """Drop the oldest token, which shifts the positions of later ones.

        In the released beam search the decoder sees the start token in the first step only.
        """
        self.first += 1

    def _take(self, beams: Tensor) -> None:
        for layer in self.layers:
            layer.take(beams, slice(self.first, self.length))
