"""The likelihood of many texts for many images: a beginning that texts share is read once.

The texts are a tree of their prefixes. A level holds all different prefixes of one length, and is
one step of the decoder: its prefixes are what beams are to a search, so that they share their
image's projected grid and continue their parents' cached keys and values.

Shapes: B images, K texts, M prefixes and E tokens asked for at a level, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from virtex.models.textual_head import Direction, TextualHead
from virtex.tokens import PAD_ID

Prefix = tuple[int, ...]
MAX_ELEMENTS = 2**26
"""Numbers that one step may hold: so many images are scored at once."""


@dataclass(frozen=True)
class Level:
    """The prefixes of one length, and the tokens that follow them in some text."""

    tokens: Tensor
    """(M,) last token of each prefix."""
    parents: Tensor
    """(M,) which prefix of the level before it continues."""
    sources: Tensor
    """(E,) a prefix of this level."""
    targets: Tensor
    """(E,) a token that follows it."""
    continued: Tensor
    """(M',) those of the E that are the next level's prefixes."""
    texts: Tensor
    """Texts that end at this level."""
    ends: Tensor
    """With which of the E each of them ends."""


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
        """Texts as ids with start and end token, left to right for both directions."""
        rows = [tuple(text) if direction == "forward" else tuple(text)[::-1] for text in texts]
        levels: list[Level] = []
        prefixes = _numbered(row[:1] for row in rows)
        parents = [0] * len(prefixes)
        for length in range(2, max(map(len, rows), default=0) + 1):
            asked = _numbered(row[:length] for row in rows if len(row) >= length)
            going_on = _numbered(row[:length] for row in rows if len(row) > length)
            ending = [number for number, row in enumerate(rows) if len(row) == length]
            numbers = (
                [prefix[-1] for prefix in prefixes],
                parents,
                [prefixes[prefix[:-1]] for prefix in asked],
                [prefix[-1] for prefix in asked],
                [asked[prefix] for prefix in going_on],
                ending,
                [asked[rows[number]] for number in ending],
            )
            levels.append(Level(*(torch.tensor(row, device=device).long() for row in numbers)))
            parents = [prefixes[prefix[:-1]] for prefix in going_on]
            prefixes = going_on
        return cls(tuple(levels), len(texts), direction)

    @property
    def num_prefixes(self) -> int:
        """The decoder's tokens for one image; without sharing it were all tokens of all texts."""
        return sum(len(level.tokens) for level in self.levels)

    @property
    def widest(self) -> int:
        """Prefixes of the widest level."""
        return max((len(level.tokens) for level in self.levels), default=0)


def _numbered(prefixes: Iterable[Prefix]) -> dict[Prefix, int]:
    """Different prefixes, numbered in order."""
    return {prefix: number for number, prefix in enumerate(dict.fromkeys(prefixes))}


@torch.no_grad()
def log_likelihoods(head: TextualHead, grid: Tensor, tree: TextTree) -> Tensor:
    """Log-likelihood (B, K) of each text for each image, float32; unknown tokens count 0.

    As `Captioner.score` of each pair, which reads each text anew for each image.

    Args:
        grid: (B, C, h, w) what the backbone makes of the images.
    """
    vocab_size, size = head.embedding.words.weight.shape
    remembered = 2 * size * len(tree.levels) * len(head.decoder(tree.direction).layers)
    chunk = max(1, MAX_ELEMENTS // max(1, tree.widest * (vocab_size + remembered)))
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
        cache.branch(level.parents)
        logits = head.step(level.tokens.expand(batch_size, -1), cache)  # (B, M, V)
        log_probs = logits.float().log_softmax(-1)
        asked = log_probs[:, level.sources, level.targets].masked_fill(level.targets == PAD_ID, 0)
        scores = prefixes[:, level.sources] + asked  # (B, E)
        texts[:, level.texts] = scores[:, level.ends]
        prefixes = scores[:, level.continued]
    return texts
