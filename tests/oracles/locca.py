"""A slow twin of LocCa: the sequences of one object at a time, and each one's losses alone."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.oracles.textual_head import PaddedCaptioner

CAP, AREF, GCAP = 0, 1, 2
END = 2


class Read(NamedTuple):
    """A sequence, and how many of its tokens after the prefix are the half that is given."""

    reading: int
    tokens: list[int]
    num_given: int


def box_tokens(box: Sequence[float], *, vocab_size: int, num_bins: int, size: int) -> list[int]:
    """The tokens of x1 y1 x2 y2 in pixels, which follow three prefixes behind the vocabulary."""
    return [vocab_size + 3 + min(int(value * num_bins / size), num_bins - 1) for value in box]


def sequences(
    caption: list[int],
    objects: Sequence[tuple[list[int], Sequence[float]]],
    *,
    vocab_size: int,
    num_bins: int,
    size: int,
) -> list[Read]:
    """The sequences of an image, given its caption's words, and each object's words and box."""
    found = [Read(CAP, [vocab_size + CAP, *caption, END], 0)]
    for words, box in objects:
        place = box_tokens(box, vocab_size=vocab_size, num_bins=num_bins, size=size)
        found.append(Read(AREF, [vocab_size + AREF, *words, *place], len(words)))
        found.append(Read(GCAP, [vocab_size + GCAP, *place, *words, END], len(place)))
    return found


def losses(twin: PaddedCaptioner, grid: Tensor, read: Read) -> tuple[list[Tensor], list[Tensor]]:
    """The losses of the given half's tokens, and of those that follow, for a grid (1, C, h, w)."""
    given, following = list[Tensor](), list[Tensor]()
    for end in range(1, len(read.tokens)):
        before = torch.tensor(read.tokens[:end])[None]
        logits = twin.textual(grid, before, torch.tensor([end]))[0, -1]
        loss = cross_entropy(logits, torch.tensor(read.tokens[end]))
        (given if end <= read.num_given else following).append(loss)
    return given, following
