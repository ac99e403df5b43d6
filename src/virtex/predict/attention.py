"""Where the decoder looked when it said each word of a caption.

Vaswani et al., NeurIPS 2017, section 3.2: the softmax of queries and keys, whose queries come from
the words said so far and whose keys come from the cells of the image's feature grid. What such maps
tell and what they do not: docs/attention.md.

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
from virtex.models.textual_head import DIRECTIONS, Direction
from virtex.tokens import EOS_ID, SOS_ID

Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CaptionAttention:
    """A caption's words, and how each shares its attention among the cells of the grid."""

    text: str
    """As the decoder read it: in lower case, and cut where it is too long for the model."""
    words: tuple[str, ...]
    """Of `text`: letters and digits; punctuation and unknown characters stand between them."""
    weights: Weights = field(repr=False)
    """(L, A, W, h, w); each map sums to one. A word of several pieces has the mean of theirs."""
    direction: Direction
    """Which decoder read it: when it said a word it knew those to the left of it (forward), or
    those to the right of it (backward)."""
    log_likelihood: float
    """Of `text`, read in `direction`."""

    @property
    def mean_map(self) -> Weights:
        """(L, A, h, w): where each head looked on average over the words.

        Raises:
            DataError: The caption has no words.
        """
        if not self.words:
            raise DataError("a caption without words has no attention map")
        return self.weights.mean(2)

    def maps(
        self, layer: int | None = None, head: int | None = None, *, bias: Weights | None = None
    ) -> Weights:
        """A map for each word, (W, h, w).

        Args:
            layer: From 0; None for the mean of all.
            head: From 0; None for the mean of all.
            bias: (L, A, h, w), such as `attention_bias` measures or `mean_map`. Given, a map says
                how many times as much a cell got as in `bias`, instead of which share it got.

        Raises:
            ConfigError: No such layer or head, or the bias of another model.
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
                f"{grid[0]} x {grid[1]} grid: measure it on the model whose maps it is for"
            )
        usual = _mean_of_heads(bias, layer, head)  # (h, w)
        return maps / usual.clip(np.finfo(np.float32).tiny)


def attention_bias(attentions: Sequence[CaptionAttention]) -> Weights:
    """Where a model looks whatever the image and the word: (L, A, h, w).

    The mean over the captions of the mean over their words; some hundred captions of different
    images tell it well.

    Raises:
        DataError: Not one caption with words.
    """
    maps = [attention.mean_map for attention in attentions if attention.words]
    if not maps:
        raise DataError(f"of {len(attentions)} captions none has words: give at least one")
    return np.mean(maps, 0, dtype=np.float32)


def attention_of(
    captioner: Captioner,
    tokenizer: Tokenizer,
    grid: Tensor,
    *,
    rows: Sequence[Tensor],
    direction: Direction,
) -> list[CaptionAttention]:
    """The attention of B captions.

    Args:
        grid: (B, C, h, w), what the backbone makes of their images.
        rows: B tensors (T,) of ids with the start token, and for backward with the end token.
    """
    tokens, lengths = pad_tokens(rows)
    tokens = tokens.to(grid.device)
    weights = captioner.attention(grid, tokens, lengths, direction=direction)  # (B, L, A, T, N)
    maps = weights.unflatten(4, grid.shape[2:]).cpu().numpy()
    scores = captioner.score_grid(grid, tokens, lengths, direction=direction)
    return [
        _caption_attention(row[1:].tolist(), looked[:, :, 1:], score, tokenizer, direction)
        for row, looked, score in zip(rows, maps, scores.tolist(), strict=True)
    ]


def reading_row(ids: Sequence[int], direction: Direction, *, max_tokens: int) -> Tensor:
    """A generated caption's ids as a row of tokens (T,), with start token.

    Who reads backward begins with the end token, which a caption cut at its longest lacks: there
    it takes the last place.
    """
    if direction == "backward" and ids[-1] != EOS_ID:
        ids = [*ids[: max_tokens - 1], EOS_ID]
    return torch.tensor([SOS_ID, *ids])


def check_direction(captioner: Captioner, direction: Direction) -> None:
    """See that the captioner reads in a direction.

    Raises:
        ConfigError: It does not.
    """
    if direction not in DIRECTIONS:
        raise ConfigError(f"direction {direction!r} is none of {', '.join(DIRECTIONS)}")
    if direction not in captioner.head.directions:
        raise ConfigError(
            f"direction {direction!r} asked of a model that reads forward alone; give forward."
        )


def _caption_attention(
    ids: Sequence[int],
    maps: Weights,
    score: float,
    tokenizer: Tokenizer,
    direction: Direction,
) -> CaptionAttention:
    """Of one caption, from its token ids (T,) and their maps (L, A, T, h, w)."""
    words = list(find_words(ids, tokenizer))
    weights = np.empty((*maps.shape[:2], len(words), *maps.shape[3:]), np.float32)
    for number, word in enumerate(words):
        weights[:, :, number] = maps[:, :, word.indices].mean(2)
    texts = tuple(word.text for word in words)
    return CaptionAttention(tokenizer.decode(ids), texts, weights, direction, score)


def _mean_of_heads(weights: Weights, layer: int | None, head: int | None) -> Weights:
    """(L, A, ...) to (...): one layer or the mean of all, and likewise one head."""
    layers = slice(None) if layer is None else slice(layer, layer + 1)
    heads = slice(None) if head is None else slice(head, head + 1)
    return weights[layers, heads].mean((0, 1))
