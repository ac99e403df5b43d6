"""Ranking of finished captions by both decoders, of which one reads right to left.

Shapes: B images, K captions of each, T tokens. The captions of an image form one row of K * T
tokens, so that they share its projected grid; an attention mask separates them. Its size is the
square of a row's, so many captions are read in several passes.
"""

from dataclasses import replace

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


def log_likelihoods(
    head: TextualHead, grid: Tensor, *, readings: Tensor, lengths: Tensor, direction: Direction
) -> Tensor:
    """Return the log-likelihoods (B, K) of K captions of each image; unknown tokens count 0.

    Args:
        grid: (B, C, h, w) feature grids of the images.
        readings: (B, K, T) captions in the order in which `direction` reads them.
        lengths: (B, K) lengths of the captions; on the CPU they spare the host a wait.
    """
    num_tokens, scores = readings.shape[2] - 1, []
    chunk = max(1, MAX_ROW // num_tokens)
    for part, counts in zip(readings.split(chunk, 1), lengths.split(chunk, 1), strict=True):
        inputs, targets = part[..., :-1].flatten(1), part[..., 1:].flatten(1)  # (B, K * T)
        packing = _side_by_side(counts - 1, device=part.device, num_tokens=num_tokens)
        hidden = head(packing.pack(inputs)[None], packing, grid, directions=[direction])
        losses = head.token_losses(hidden, packing.pack(targets)[None])[0]  # (P,)
        totals = losses.new_zeros(counts.numel())
        totals = totals.index_add(0, packing.rows // num_tokens, -losses)
        scores.append(totals.view(counts.shape))
    return torch.cat(scores, 1)


def _side_by_side(lengths: Tensor, *, device: torch.device, num_tokens: int) -> Packing:
    """Return the layout of captions of T tokens, of which `lengths` (B, K) are real."""
    batch_size, num_captions = lengths.shape
    separate = Packing.of(lengths.flatten(), device=device, num_tokens=num_tokens)
    steps = torch.arange(num_captions * num_tokens, device=device)
    captions = steps // num_tokens
    visible = (captions[:, None] == captions) & (steps[:, None] >= steps)  # (KT, KT)
    visible = visible.expand(batch_size, 1, -1, -1)
    return Packing(separate.rows, batch_size, len(steps), visible, num_captions)


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
