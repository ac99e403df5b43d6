"""Packed batches unpacked, for slow twins that read padded captions."""

import torch
from torch import Tensor

from virtex.tasks.base import Batch


def padded_captions(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) and lengths (B,) of captions whose next token is predicted."""
    read, lengths = _padded(batch, batch["inputs"][0])
    follow, _ = _padded(batch, batch["targets"][0])
    return torch.cat([read[:, :1], follow], 1), lengths + 1


def padded_hidden(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (B, T), lengths (B,) and targets (B, T) of captions with hidden tokens."""
    targets = torch.zeros_like(batch["inputs"])
    targets[batch["chosen"]] = batch["targets"]
    inputs, lengths = _padded(batch, batch["inputs"])
    return inputs, lengths, _padded(batch, targets)[0]


def _padded(batch: Batch, packed: Tensor) -> tuple[Tensor, Tensor]:
    is_real = batch["places"] != len(batch["rows"]) - 1
    lengths = is_real.sum(1)
    return (packed[batch["places"]] * is_real)[:, : int(lengths.max())], lengths
