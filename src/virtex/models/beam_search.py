"""Beam search as in the released VirTex code, from AllenNLP; greedy search is one beam.

Each caption proposes its `per_node_beams` best next tokens, and the `num_beams` best of all
proposals survive. A caption that has ended proposes the end token only, with log-probability 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from virtex.models.decoding_config import DecodingConfig
from virtex.models.running import NEVER, Running, forbid
from virtex.tokens import EOS_ID


@dataclass(frozen=True)
class BeamSearch:
    """A search for the likeliest captions, which keeps them by descending likelihood."""

    config: DecodingConfig
    num_captions: int
    num_beams: int

    def extend(self, running: Running, logits: Tensor) -> Running:
        """Return the K likeliest continuations by one token, given logits (B, K, V).

        In the first step there is one caption of each image, which proposes K tokens.
        """
        is_first = running.tokens.shape[1] == 1
        num_proposals = self.num_beams if is_first else self.config.per_node_beams
        log_probs, tokens = self._proposals(running, logits, num_proposals)
        log_probs = (running.log_probs[..., None] + log_probs).flatten(1)  # (B, K * P)
        log_probs, winners = log_probs.topk(self.num_beams)  # (B, K)
        parents = winners // num_proposals
        history = running.tokens.gather(
            1, parents[..., None].expand(-1, -1, running.tokens.shape[2])
        )
        tokens = tokens.flatten(1).gather(1, winners)[..., None]
        return Running(
            running.images,
            torch.cat([history, tokens], 2),
            log_probs,
            parents if self.num_beams > 1 else None,
        )

    def decided(self, running: Running) -> Tensor:
        """Return which images are done, (B,): longer captions can only lose likelihood."""
        if self.config.length_penalty:
            return running.ended.all(1)
        return running.ended[:, : self.num_captions].all(1)

    def _proposals(self, running: Running, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and tokens (B, K, P) of each caption's likeliest next tokens.

        Missing ones are end tokens of log-probability -inf.
        """
        allowed = logits.float().log_softmax(2)
        forbid(allowed, running.tokens, config=self.config)
        best, tokens = allowed.topk(min(count, allowed.shape[2]))
        missing = (0, count - best.shape[2])
        log_probs = pad(best, missing, value=NEVER)
        tokens = pad(tokens, missing, value=EOS_ID)
        tokens = tokens.masked_fill(log_probs == NEVER, EOS_ID)
        if not running.tokens.shape[2]:
            return log_probs, tokens
        ended = running.ended[..., None]  # (B, K, 1)
        stays = torch.full_like(log_probs, NEVER)
        stays[..., 0].fill_(0)
        return torch.where(ended, stays, log_probs), tokens.masked_fill(ended, EOS_ID)
