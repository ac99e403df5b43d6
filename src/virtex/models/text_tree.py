"""The likelihood of many texts for many images, in which shared prefixes are computed once.

The texts form a tree of their prefixes. A level holds all distinct prefixes of one length, and is
one step of the decoder. Like the beams of a search, its prefixes share their image's projected grid
and continue their parents' cached keys and values.

Shapes: B images, K texts, M prefixes and E next tokens of a level, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from virtex.models.packing import Direction
from virtex.models.textual_head import TextualHead
from virtex.tokens import PAD_ID

Prefix = tuple[int, ...]
MAX_ELEMENTS = 2**26
"""Maximum number of logits and cached values in a step, which limits the images in a batch."""


@dataclass(frozen=True)
class Level:
    """The distinct prefixes of one length, and the tokens that follow them in some text."""

    tokens: Tensor
    """(M,) last token of each prefix."""
    parents: Tensor
    """(M,) index of its parent among the previous level's prefixes."""
    sources: Tensor
    """(E,) index of a prefix of this level."""
    targets: Tensor
    """(E,) next token of this prefix."""
    continued: Tensor
    """(M',) indices into the E of the next level's prefixes."""
    texts: Tensor
    """(F,) indices of the texts that end at this level."""
    ends: Tensor
    """(F,) indices into the E of their last tokens."""


@dataclass(frozen=True)
class TextTree:
    """K texts laid out for `log_likelihoods`."""

    levels: tuple[Level, ...]
    num_texts: int
    direction: Direction

    @classmethod
    def of(
        cls,
        texts: Sequence[Sequence[int]],
        *,
        direction: Direction = "forward",
        device: torch.device | str = "cpu",
    ) -> Self:
        """Return the tree of texts, left to right in both directions, as ids with start and end."""
        rows = [tuple(text) if direction == "forward" else tuple(text)[::-1] for text in texts]
        levels: list[Level] = []
        prefixes = _indexed(row[:1] for row in rows)
        parents = [0] * len(prefixes)
        for length in range(2, max(map(len, rows), default=0) + 1):
            extended = _indexed(row[:length] for row in rows if len(row) >= length)
            continued = _indexed(row[:length] for row in rows if len(row) > length)
            ending = [index for index, row in enumerate(rows) if len(row) == length]
            fields = (
                [prefix[-1] for prefix in prefixes],
                parents,
                [prefixes[prefix[:-1]] for prefix in extended],
                [prefix[-1] for prefix in extended],
                [extended[prefix] for prefix in continued],
                ending,
                [extended[rows[index]] for index in ending],
            )
            levels.append(Level(*(torch.tensor(row, device=device).long() for row in fields)))
            parents = [prefixes[prefix[:-1]] for prefix in continued]
            prefixes = continued
        return cls(tuple(levels), len(texts), direction)

    @property
    def num_prefixes(self) -> int:
        """Number of tokens that the decoder computes for one image."""
        return sum(len(level.tokens) for level in self.levels)


def _indexed(prefixes: Iterable[Prefix]) -> dict[Prefix, int]:
    """Return the distinct prefixes and their indices, in order."""
    return {prefix: index for index, prefix in enumerate(dict.fromkeys(prefixes))}


@torch.no_grad()
def log_likelihoods(head: TextualHead, grid: Tensor, tree: TextTree) -> Tensor:
    """Return the log-likelihood (B, K) of each text for each image of feature grids (B, C, h, w).

    It equals `Captioner.score` of each pair, in float32; unknown tokens count 0.
    """
    vocab_size, size = head.embedding.words.weight.shape
    cached = 2 * size * len(tree.levels) * len(head.decoder(tree.direction).layers)
    widest = max((len(level.tokens) for level in tree.levels), default=0)
    chunk = max(1, MAX_ELEMENTS // max(1, widest * (vocab_size + cached)))
    scores = [_log_likelihoods(head, part, tree) for part in grid.split(chunk)]
    return torch.cat(scores) if scores else grid.new_zeros(0, tree.num_texts)


def _log_likelihoods(head: TextualHead, grid: Tensor, tree: TextTree) -> Tensor:
    batch_size = len(grid)
    texts = torch.zeros(batch_size, tree.num_texts, device=grid.device)  # (B, K)
    cache = head.start(
        grid, num_beams=1, num_steps=max(1, len(tree.levels)), direction=tree.direction
    )
    prefixes = torch.zeros(batch_size, 1, device=grid.device)  # (B, M), log-likelihoods
    for level in tree.levels:
        cache.reorder(level.parents.expand(batch_size, -1))
        logits = head.step(level.tokens.expand(batch_size, -1), cache)  # (B, M, V)
        log_probs = logits.float().log_softmax(-1)
        added = log_probs[:, level.sources, level.targets].masked_fill(level.targets == PAD_ID, 0)
        scores = prefixes[:, level.sources] + added  # (B, E)
        texts[:, level.texts] = scores[:, level.ends]
        prefixes = scores[:, level.continued]
    return texts
