"""Captions as token ids with start and end, truncated, and padded to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from virtex.data.tokenizer import Tokenizer
from virtex.errors import ConfigError
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID

FEWEST_TOKENS = 3
NUM_ADDED = 2
"""Number of tokens that a caption has beside its text: start and end."""


@dataclass(frozen=True)
class EncodeCaption:
    """A function from a caption to its token ids, with start and end."""

    tokenizer: Tokenizer
    max_tokens: int
    """Most tokens, with start and end; the text of longer captions is truncated."""
    original: bool = False
    """Whether to truncate the end token with the text, as the released code did."""

    def __post_init__(self) -> None:
        if self.max_tokens < FEWEST_TOKENS:
            raise ConfigError(
                f"max_tokens {self.max_tokens} leaves no room for text between start and end: "
                f"give {FEWEST_TOKENS} or more"
            )

    def __call__(self, caption: str) -> Tensor:
        """Return token ids (T,) int64, at most `max_tokens`."""
        ids = self.tokenizer.encode(caption)
        if self.original:
            return torch.tensor([SOS_ID, *ids, EOS_ID][: self.max_tokens])
        return torch.tensor([SOS_ID, *ids[: self.max_tokens - NUM_ADDED], EOS_ID])


def class_words(name: str) -> str:
    """Return the words of a class name, in which underscores stand for spaces."""
    return name.replace("_", " ")


def pad_tokens(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad B sequences on the right to tokens (B, T), and return their lengths (B,), both int64."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return pad_sequence(list(sequences), batch_first=True, padding_value=PAD_ID), lengths
