"""Ranking of finished captions by both decoders, of which one reads right to left.

Shapes: B images, K captions of each, T tokens. The captions of an image form one row of K * T
tokens, so that they share its projected grid; an attention mask separates them. Its size is the
square of a row's, so many captions are read in several passes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from virtex.models.attention import Packing
from virtex.models.decoding import DecodingConfig, Generated
from virtex.models.running import NEVER
from virtex.models.textual_head import Direction, TextualHead
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID

MAX_ROW = 512
"""Maximum number of tokens in a row, unless a single caption is longer."""


@dataclass(frozen=True)
class SideBySide(Packing):
    """Layout of several captions in each row."""

    num_captions: int = 1

    @property
    def positions(self) -> Tensor:
        """(P,) position of each packed token in its caption."""
        return self.rows % (self.num_tokens // self.num_captions)

    @classmethod
    def captions(cls, lengths: Tensor, *, device: torch.device, num_tokens: int) -> "SideBySide":
        """Return the layout of captions of T tokens, of which `lengths` (B, K) are real."""
        batch_size, num_captions = lengths.shape
        one_a_row = Packing.of(lengths.flatten(), device=device, num_tokens=num_tokens)
        steps = torch.arange(num_captions * num_tokens, device=device)
        captions = steps // num_tokens
        visible = (captions[:, None] == captions) & (steps[:, None] >= steps)  # (KT, KT)
        return cls(
            rows=one_a_row.rows,
            batch_size=batch_size,
            num_tokens=num_captions * num_tokens,
            visible=visible.expand(batch_size, 1, -1, -1),
            num_captions=num_captions,
        )


def log_likelihoods(
    head: TextualHead, grid: Tensor, *, readings: Tensor, lengths: Tensor, direction: Direction
) -> Tensor:
    """Return the log-likelihoods (B, K) of K captions of each image; unknown tokens count 0.

    Args:
        grid: (B, C, h, w) feature grids of the images.
        readings: (B, K, T) captions in the order in which `direction` reads them.
        lengths: (B, K) lengths of the captions; on the CPU they spare the host a wait.
    """
    chunk = max(1, MAX_ROW // (readings.shape[2] - 1))
    parts = zip(readings.split(chunk, 1), lengths.split(chunk, 1), strict=True)
    read = [_log_likelihoods(head, grid, *part, direction=direction) for part in parts]
    return torch.cat(read, 1)


def _log_likelihoods(
    head: TextualHead, grid: Tensor, readings: Tensor, lengths: Tensor, *, direction: Direction
) -> Tensor:
    inputs, targets = readings[..., :-1], readings[..., 1:]
    packing = SideBySide.captions(lengths - 1, device=readings.device, num_tokens=inputs.shape[2])
    hidden = head(packing.pack(inputs.flatten(1))[None], packing, grid, directions=[direction])
    losses = head.token_losses(hidden, packing.pack(targets.flatten(1))[None])[0]  # (P,)
    captions = packing.rows // inputs.shape[2]
    totals = losses.new_zeros(lengths.numel()).index_add(0, captions, -losses)
    return totals.view(lengths.shape)


def with_start_and_end(generated: Generated) -> tuple[Tensor, Tensor]:
    """Return captions with start and end token, (B, K, T + 2), and their lengths (B, K).

    A caption that was cut gets the end token that it lacks.
    """
    tokens, lengths = generated.tokens, generated.lengths
    tokens = pad(pad(tokens, (1, 0), value=SOS_ID), (0, 1), value=PAD_ID)
    last = tokens.gather(2, lengths[..., None])[..., 0]
    lengths = lengths + 1 + (last != EOS_ID)
    return tokens.scatter(2, lengths[..., None] - 1, EOS_ID), lengths


def rerank(
    generated: Generated, backward: Tensor, *, config: DecodingConfig, num_captions: int
) -> Generated:
    """Return the best `num_captions` of K captions by both log-likelihoods, missing ones last.

    Args:
        backward: (B, K) log-likelihood of each caption read right to left.
    """
    found = generated.log_probs > NEVER
    backward = backward.masked_fill(~found, NEVER)
    weight = config.backward_weight
    both = ((1 - weight) * generated.log_probs + weight * backward).masked_fill(~found, NEVER)
    scores = both / generated.lengths**config.length_penalty
    return replace(generated, backward_log_probs=backward).ranked(scores, num_captions)
