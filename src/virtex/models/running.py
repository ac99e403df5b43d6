"""Unfinished captions of a search, and the tokens that may come next.

Shapes: B images, K captions of each, t tokens so far, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.models.decoding_config import DecodingConfig
from virtex.tokens import EOS_ID

NEVER = float("-inf")


@dataclass(frozen=True)
class Running:
    """K unfinished captions of each of the B images that are not done."""

    images: Tensor
    """(B,) indices of the images in the batch."""
    tokens: Tensor
    """(B, K, t) without start token."""
    log_probs: Tensor
    """(B, K) log-probabilities of the captions."""
    parents: Tensor | None = None
    """(B, K) index of the previous step's caption that each continues; None if it is the same."""

    @property
    def last(self) -> Tensor:
        """Last tokens (B, K)."""
        return self.tokens[..., -1]

    @property
    def ended(self) -> Tensor:
        """Whether each caption has an end token, (B, K) bool."""
        return self.last == EOS_ID

    def select(self, rows: Tensor) -> "Running":
        """Return the captions of some of the images."""
        parents = None if self.parents is None else self.parents[rows]
        return Running(self.images[rows], self.tokens[rows], self.log_probs[rows], parents)


def forbid(scores: Tensor, written: Tensor, *, config: DecodingConfig) -> None:
    """Set the scores (B, K, V) of tokens that may not follow captions (B, K, t) to -inf, in place.

    These are `config.forbidden`, the last token, and tokens that would repeat an n-gram.
    """
    for token in config.forbidden:  # a list as index would be copied to the device: a wait
        scores[..., token].fill_(NEVER)
    if not written.shape[2]:
        return
    last = written[..., -1:]  # (B, K, 1)
    scores.scatter_(2, last, NEVER)
    size = config.no_repeat_ngram
    if size and written.shape[2] >= size:
        ngrams = written.unfold(2, size, 1)  # (B, K, t - size + 1, size)
        context = written[:, :, None, written.shape[2] - size + 1 :]
        is_next = (ngrams[..., :-1] == context).all(3)
        scores.scatter_(2, torch.where(is_next, ngrams[..., -1], last), NEVER)
