"""Finished captions ranked by both decoders: the second reads them right to left.

Shapes: B images, K captions of each, T tokens. An image's captions lie side by side in one row of
K * T tokens, so that they share its projected grid: attention, which alone sees rows, keeps them
apart. That costs the square of a row's tokens, so that many captions are read in several passes.
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
"""Tokens that lie side by side at most, unless a single caption is longer."""


@dataclass(frozen=True)
class SideBySide(Packing):
    """Several captions in each row."""

    num_captions: int = 1

    @property
    def positions(self) -> Tensor:
        """(P,) position of each packed token in its caption."""
        return self.rows % (self.num_tokens // self.num_captions)

    @classmethod
    def captions(cls, lengths: Tensor, *, device: torch.device, num_tokens: int) -> "SideBySide":
        """Where the first `lengths` (B, K) tokens of each caption of T tokens lie."""
        batch_size, num_captions = lengths.shape
        one_a_row = Packing.of(lengths.flatten(), device=device, num_tokens=num_tokens)
        places = torch.arange(num_captions * num_tokens, device=device)
        captions = places // num_tokens
        visible = (captions[:, None] == captions) & (places[:, None] >= places)  # (KT, KT)
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
    """Log-likelihood (B, K) of K captions of each image; padding and unknown tokens count 0.

    Args:
        grid: (B, C, h, w) what the backbone makes of the images.
        readings: (B, K, T) captions in the order in which `direction` reads them.
        lengths: (B, K) how many tokens of each are real; on the CPU they spare the host a wait.
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
    tokens, asked = (packing.pack(part.flatten(1)) for part in (inputs, targets))  # (P,)
    hidden = head(tokens[None], packing, grid, directions=[direction])
    losses = head.token_losses(hidden, asked[None])[0]  # (P,)
    captions = packing.rows // inputs.shape[2]
    totals = losses.new_zeros(lengths.numel()).index_add(0, captions, -losses)
    return totals.view(lengths.shape)


def with_start_and_end(generated: Generated) -> tuple[Tensor, Tensor]:
    """Captions with start and end token, (B, K, T + 2), and their lengths (B, K).

    One that was cut at its longest gets the end token that it lacks.
    """
    tokens, lengths = generated.tokens, generated.lengths
    tokens = pad(pad(tokens, (1, 0), value=SOS_ID), (0, 1), value=PAD_ID)
    last = tokens.gather(2, lengths[..., None])[..., 0]
    lengths = lengths + 1 + (last != EOS_ID)
    return tokens.scatter(2, lengths[..., None] - 1, EOS_ID), lengths


def rerank(
    generated: Generated, backward: Tensor, *, config: DecodingConfig, num_captions: int
) -> Generated:
    """The best `num_captions` of K captions by both log-likelihoods; those not found stay last.

    Args:
        backward: (B, K) log-likelihood of each caption read right to left.
    """
    found = generated.log_probs > NEVER
    backward = backward.masked_fill(~found, NEVER)
    weight = config.backward_weight
    both = ((1 - weight) * generated.log_probs + weight * backward).masked_fill(~found, NEVER)
    scores = both / generated.lengths**config.length_penalty
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :num_captions]  # (B, n)
    lengths = generated.lengths.gather(1, best)
    tokens = generated.tokens.gather(1, best[..., None].expand(-1, -1, generated.tokens.shape[2]))
    return replace(
        generated,
        tokens=tokens[..., : int(lengths.max())] if lengths.numel() else tokens,
        lengths=lengths,
        log_probs=generated.log_probs.gather(1, best),
        backward_log_probs=backward.gather(1, best),
    )
