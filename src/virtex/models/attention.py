"""Attention of packed caption tokens to their caption and to the image's grid.

Tokens lie as packing.py says: (P, D) everywhere but in attention, which is (B, T, D).

Shapes: B images, K captions or beams of each, T tokens, P packed tokens, D width, A heads of d
channels, N grid cells.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from virtex.models.kv_cache import LayerCache
from virtex.models.linear import Linear
from virtex.models.packing import Packing


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    dropout: float,
    is_causal: bool = False,
    visible: Tensor | None = None,
) -> Tensor:
    """Return the attention (B, A, T, d) of queries (B, A, T, d) to keys and values (B, A, N, d).

    On a CPU the backward pass of PyTorch's flash kernel is slow for matrices as small as captions
    (a fifth of a slim model's step), so training takes plain products there.
    """
    plain = queries.device.type == "cpu" and torch.is_grad_enabled()
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        return scaled_dot_product_attention(
            queries, keys, values, attn_mask=visible, dropout_p=dropout, is_causal=is_causal
        )


class SelfAttention(nn.Module):
    """Attention of each token to tokens of its caption, those that its `Packing` makes visible."""

    def __init__(self, size: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_projection = Linear(size, 3 * size)
        self.out_projection = Linear(size, size)

    def forward(self, hidden: Tensor, packing: Packing) -> Tensor:
        """Attend from hidden states (P, D) to those of the same caption."""
        padded = packing.pad(self.in_projection(hidden))  # (B, T, 3D)
        queries, keys, values = _heads(padded, 3, self.num_heads)  # (B, A, T, d) each
        dropout, visible = self.dropout if self.training else 0.0, packing.visible
        is_causal = visible is None
        attended = attend(
            queries, keys, values, dropout=dropout, is_causal=is_causal, visible=visible
        )
        return self.out_projection(packing.pack(attended.transpose(1, 2).flatten(2)))

    def step(self, hidden: Tensor, cache: LayerCache, kept: slice) -> Tensor:
        """Attend from one token per beam (B, K, D), cached last among the positions `kept`."""
        projected = self.in_projection(hidden).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = projected.unbind(2)  # (B, K, A, d) each
        cache.keys[:, :, :, kept.stop - 1] = keys
        cache.values[:, :, :, kept.stop - 1] = values
        attended = scaled_dot_product_attention(
            queries.flatten(0, 1)[:, :, None],
            cache.keys.flatten(0, 1)[:, :, kept],
            cache.values.flatten(0, 1)[:, :, kept],
        )  # (B*K, A, 1, d)
        return self.out_projection(attended.reshape(hidden.shape))


class GridAttention(nn.Module):
    """Attention of each token to the cells of its image's feature grid."""

    def __init__(self, size: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query = Linear(size, size)
        self.key_value = Linear(size, 2 * size)
        self.out_projection = Linear(size, size)

    def keys_values(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Project the grid (B, N, D) to keys and values, (B, A, N, d) each."""
        keys, values = _heads(self.key_value(grid), 2, self.num_heads)
        return keys, values

    def forward(self, hidden: Tensor, packing: Packing, grid: Tensor) -> Tensor:
        """Attend from hidden states (P, D) to grids (B, N, D).

        The K captions of an image share its keys and values.
        """
        queries = packing.pad(self.query(hidden))  # (B * K, T, D)
        of_images = queries.reshape(len(grid), -1, queries.shape[2])  # (B, K * T, D)
        attended = self._attend(of_images, *self.keys_values(grid))
        return self.out_projection(packing.pack(attended.reshape(queries.shape)))

    def weights(self, hidden: Tensor, packing: Packing, grid: Tensor) -> Tensor:
        """Return the attention weights of `forward`, (B, A, T, N) float32.

        Each row sums to one; rows of padding are meaningless.
        """
        (queries,) = _heads(packing.pad(self.query(hidden)), 1, self.num_heads)  # (B, A, T, d)
        keys, _ = self.keys_values(grid)  # (B, A, N, d)
        products = queries @ keys.transpose(2, 3)  # (B, A, T, N)
        return (products * queries.shape[3] ** -0.5).softmax(3, dtype=torch.float32)

    def step(self, hidden: Tensor, cache: LayerCache) -> Tensor:
        """Attend from one token per beam (B, K, D): the beams of an image are its queries."""
        attended = self._attend(self.query(hidden), cache.grid_keys, cache.grid_values)
        return self.out_projection(attended)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        (queries,) = _heads(queries, 1, self.num_heads)
        attended = attend(queries, keys, values, dropout=self.dropout if self.training else 0.0)
        return attended.transpose(1, 2).flatten(2)  # (B, T, D)


def _heads(projected: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """Split (B, T, parts * D) into `parts` tensors (B, A, T, d)."""
    split = projected.unflatten(2, (parts, num_heads, -1))  # (B, T, parts, A, d)
    return split.permute(2, 0, 3, 1, 4).unbind(0)
