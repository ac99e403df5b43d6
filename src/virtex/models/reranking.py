"""Ranking of finished captions by both decoders, of which one reads right to left.

Shapes: B images, K captions of each, T tokens. Many captions are read in several passes, which
bounds the memory of their logits.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from virtex.models.decoding import DecodingConfig, Generated, penalized
from virtex.models.packing import LENGTH_MULTIPLE, Direction, pack_readings, rounded_up
from virtex.models.running import NEVER
from virtex.models.textual_head import TextualHead
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID

MAX_TOKENS = 512
"""Maximum number of tokens of an image in one pass, unless a single caption is longer."""


def log_likelihoods(
    head: TextualHead, grid: Tensor, *, readings: Tensor, lengths: Tensor, direction: Direction
) -> Tensor:
    """Return the log-likelihoods (B, K) of K captions of each image; unknown tokens count 0.

    Args:
        grid: (B, C, h, w) feature grids of the images.
        readings: (B, K, T) captions in the order in which `direction` reads them.
        lengths: (B, K) lengths of the captions; on the CPU they spare the host a wait.
    """
    scores = []
    chunk = max(1, MAX_TOKENS // rounded_up(readings.shape[2], LENGTH_MULTIPLE))
    for part, counts in zip(readings.split(chunk, 1), lengths.split(chunk, 1), strict=True):
        tokens, numbers = part.flatten(0, 1).cpu(), counts.flatten().cpu()
        packed = pack_readings(tokens, numbers, ["forward"]).to(part.device)
        hidden = head(packed.inputs, packed.packing, grid, directions=[direction])
        losses = head.token_losses(hidden, packed.targets)[0]  # (P,)
        totals = losses.new_zeros(counts.numel())
        scores.append(totals.index_add(0, packed.packing.captions, -losses).view(counts.shape))
    return torch.cat(scores, 1)


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
    scores = penalized(both, generated.lengths, config.length_penalty)
    return replace(generated, backward_log_probs=backward).ranked(scores, num_captions)
