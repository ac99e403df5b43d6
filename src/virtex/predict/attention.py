"""Attention of the decoder over the image, for each word of a caption.

Vaswani et al., NeurIPS 2017, section 3.2: the softmax of queries and keys, whose queries come from
the words so far and whose keys come from the cells of the image's feature grid. docs/attention.md
says how to read such maps, and how not to.

Shapes: L layers, A heads, W words, T tokens, h x w cells of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virtex.data.captions import pad_tokens
from virtex.data.concept_words import find_words
from virtex.data.tokenizer import Tokenizer
from virtex.errors import ConfigError, DataError
from virtex.models.captioner import Captioner
from virtex.models.packing import Direction
from virtex.tokens import EOS_ID, SOS_ID

Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CaptionAttention:
    """Words of a caption, and a map of attention over the grid for each."""

    text: str
    """The caption as the decoder read it: in lower case, and cut to the model's maximum length."""
    words: tuple[str, ...]
    """Words of `text`, without punctuation and unknown characters."""
    weights: Weights = field(repr=False)
    """(L, A, W, h, w); each map sums to one. A word of several tokens has their mean map."""
    direction: Direction
    """The decoder: forward knows the words to the left of the current one, backward those to the
    right."""
    log_likelihood: float
    """Log-likelihood of `text` under that decoder."""

    @property
    def mean_map(self) -> Weights:
        """Attention of each head, averaged over the words: (L, A, h, w).

        Raises:
            DataError: The caption has no words.
        """
        if not self.words:
            raise DataError("a caption without words has no attention map")
        return self.weights.mean(2)

    def maps(
        self, layer: int | None = None, head: int | None = None, *, bias: Weights | None = None
    ) -> Weights:
        """Return a map for each word, (W, h, w).

        Args:
            layer: Index of a layer; by default the mean of all.
            head: Index of a head; by default the mean of all.
            bias: (L, A, h, w), such as `attention_bias` or `mean_map` returns. If given, maps are
                divided by it, and hold ratios instead of fractions.

        Raises:
            ConfigError: There is no such layer or head, or the bias has the shape of another model.
        """
        num_layers, num_heads, _, *grid = self.weights.shape
        for name, index, count in (("layer", layer, num_layers), ("head", head, num_heads)):
            if index is not None and not 0 <= index < count:
                raise ConfigError(f"{name} {index} of {count}: give 0 to {count - 1}, or None")
        maps = _mean_of_heads(self.weights, layer, head)  # (W, h, w)
        if bias is None:
            return maps
        if bias.shape != (num_layers, num_heads, *grid):
            raise ConfigError(
                f"a bias of shape {bias.shape} for {num_layers} layers, {num_heads} heads and a "
                f"{grid[0]} x {grid[1]} grid: measure it on the model that the maps come from"
            )
        usual = _mean_of_heads(bias, layer, head)  # (h, w)
        return maps / usual.clip(np.finfo(np.float32).tiny)


def attention_bias(attentions: Sequence[CaptionAttention]) -> Weights:
    """Return a model's attention averaged over captions, each averaged over its words.

    This is the attention that does not depend on image and word. A few hundred captions of
    different images suffice to measure it.

    Returns:
        (L, A, h, w).

    Raises:
        DataError: No caption has words.
    """
    maps = [attention.mean_map for attention in attentions if attention.words]
    if not maps:
        raise DataError(f"of {len(attentions)} captions none has words: give at least one")
    return np.mean(maps, 0, dtype=np.float32)


def attend_to_captions(
    captioner: Captioner,
    tokenizer: Tokenizer,
    grid: Tensor,
    *,
    rows: Sequence[Tensor],
    direction: Direction,
) -> list[CaptionAttention]:
    """Return the attention of B captions, each over its own image.

    Args:
        grid: Features of the images (B, C, h, w).
        rows: B tensors (T,) of ids with the start token, and for backward with the end token.
    """
    tokens, lengths = pad_tokens(rows)
    tokens = tokens.to(grid.device)
    weights = captioner.attention(grid, tokens, lengths, direction=direction)  # (B, L, A, T, N)
    maps = weights.reshape(*weights.shape[:4], *grid.shape[2:]).cpu().numpy()
    scores = captioner.score_grid(grid, tokens, lengths, direction=direction)
    return [
        _caption_attention(row[1:].tolist(), its_maps[:, :, 1:], score, tokenizer, direction)
        for row, its_maps, score in zip(rows, maps, scores.tolist(), strict=True)
    ]


def caption_tokens(ids: Sequence[int], direction: Direction, *, max_tokens: int) -> Tensor:
    """Return a generated caption's ids with the start token, as a tensor (T,).

    The backward decoder begins with the end token. A caption that was cut at the maximum length has
    none, and gets one in place of its last token.
    """
    if direction == "backward" and ids[-1] != EOS_ID:
        ids = [*ids[: max_tokens - 1], EOS_ID]
    return torch.tensor([SOS_ID, *ids])


def _caption_attention(
    ids: Sequence[int],
    maps: Weights,
    score: float,
    tokenizer: Tokenizer,
    direction: Direction,
) -> CaptionAttention:
    """Return the attention of one caption, given its ids (T,) and their maps (L, A, T, h, w)."""
    words = list(find_words(ids, tokenizer))
    weights = np.empty((*maps.shape[:2], len(words), *maps.shape[3:]), np.float32)
    for index, word in enumerate(words):
        weights[:, :, index] = maps[:, :, word.indices].mean(2)
    texts = tuple(word.text for word in words)
    return CaptionAttention(tokenizer.decode(ids), texts, weights, direction, score)


def _mean_of_heads(weights: Weights, layer: int | None, head: int | None) -> Weights:
    """Return weights (L, A, ...) of one layer or the mean of all, and likewise for heads: (...)."""
    layers = slice(None) if layer is None else slice(layer, layer + 1)
    heads = slice(None) if head is None else slice(head, head + 1)
    return weights[layers, heads].mean((0, 1))
