"""Relevance of the image's cells to each word of a caption: where what makes it likely lies.

Attention says where the decoder looks before a word is known; relevance says which cells the
log-likelihood of that word depends on. It is the gradient of the log-likelihood times the features
of the cells (Shrikumar et al., "Not just a black box", 2016). docs/attention.md measures both.

Shapes: W words, T tokens, h x w cells of the grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from virtex.data.captions import pad_tokens
from virtex.data.concept_words import find_words
from virtex.data.tokenizer import Tokenizer
from virtex.models.captioner import Captioner
from virtex.models.packing import Direction
from virtex.predict.attention import Weights

BLUR = 1.0
"""Standard deviation, in cells, of the Gaussian that maps are blurred by: gradients are noisy."""
AT_ONCE = 64
"""Words whose gradients are computed at once, each with a grid of its own."""


@dataclass(frozen=True, eq=False)
class CaptionRelevance:
    """Words of a caption, and a map of relevance over the grid for each."""

    text: str
    """The caption as the decoders read it: in lower case, and cut to the model's maximum length."""
    words: tuple[str, ...]
    """Words of `text`, without punctuation and unknown characters."""
    maps: Weights = field(repr=False)
    """(W, h, w); each map sums to one. Cells that lower a word's likelihood have none of it."""
    directions: tuple[Direction, ...]
    """The decoders of which the maps are the mean."""


class _Word(NamedTuple):
    caption: int
    """Index of its caption."""
    indices: tuple[int, ...]
    """Indices of its tokens, the start token not counted."""
    text: str


def relevance_to_captions(
    captioner: Captioner,
    tokenizer: Tokenizer,
    grid: Tensor,
    *,
    rows: Sequence[Tensor],
    directions: Sequence[Direction],
) -> list[CaptionRelevance]:
    """Return the relevance to B captions, each of its own image.

    Args:
        grid: Features of the images (B, C, h, w).
        rows: B tensors (T,) of ids with the start token and the end token.
    """
    words = [
        _Word(index, word.indices, word.text)
        for index, row in enumerate(rows)
        for word in find_words(row[1:].tolist(), tokenizer)
    ]
    maps = np.zeros((len(words), *grid.shape[2:]), np.float32)
    for direction in directions:
        for index, values in enumerate(_values(captioner, grid, rows, words, direction)):
            maps[index] += _as_map(values) / len(directions)
    return [
        CaptionRelevance(
            tokenizer.decode(row[1:].tolist()),
            tuple(word.text for word in words if word.caption == index),
            maps[[word.caption == index for word in words]],
            tuple(directions),
        )
        for index, row in enumerate(rows)
    ]


def _values(
    captioner: Captioner,
    grid: Tensor,
    rows: Sequence[Tensor],
    words: Sequence[_Word],
    direction: Direction,
) -> Iterator[Weights]:
    """Yield what each cell adds to the log-likelihood of each word, (h, w)."""
    for start in range(0, len(words), AT_ONCE):
        some = words[start : start + AT_ONCE]
        tokens, lengths = pad_tokens([rows[word.caption] for word in some])
        chosen = torch.zeros(tokens.shape, dtype=torch.bool)
        for index, word in enumerate(some):
            chosen[index, [1 + each for each in word.indices]] = True
        yield from (
            captioner.relevance(
                grid[[word.caption for word in some]],
                tokens.to(grid.device),
                lengths,
                chosen=chosen.to(grid.device),
                direction=direction,
            )
            .float()
            .cpu()
            .numpy()
        )


def _as_map(values: Weights) -> Weights:
    """Return the positive part of values (h, w), blurred, with the sum one; uniform if none is."""
    height, width = values.shape
    blurred = _blur(height) @ values.clip(0) @ _blur(width)
    total = blurred.sum()
    return blurred / total if total > 0 else np.full_like(values, 1 / values.size)


def _blur(size: int) -> Weights:
    """Return the matrix (N, N) of a Gaussian blur of N cells, with nothing beyond the border."""
    cells = np.arange(size, dtype=np.float32)
    return np.exp(-0.5 * ((cells - cells[:, None]) / BLUR) ** 2)
