"""Nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.

Section 3.1; `top_k` (Fan et al., ACL 2018, section 5.3) truncates the distribution before `top_p`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.models.decoding_config import DecodingConfig
from virtex.models.running import Running, forbid
from virtex.tokens import EOS_ID


@dataclass(frozen=True)
class Sampling:
    """Nucleus sampling, independent for each caption."""

    config: DecodingConfig
    draws: Tensor
    """(B, K, max_steps) uniform in [0, 1), drawn beforehand so that captions are independent."""

    def extend(self, running: Running, logits: Tensor) -> Running:
        """Return each caption with one more token, given logits (B, K, V).

        In the first step all K captions of an image continue a single one.
        """
        num_parents, position = running.tokens.shape[1:]
        draws = self.draws[running.images, :, position]  # (B, K)
        log_probs, tokens = self._draw(logits, draws, running)
        size = draws.shape[1]
        parents = None if num_parents == size else torch.zeros_like(draws, dtype=torch.int64)
        history = running.tokens.expand(-1, size, -1)
        if position:
            tokens = tokens.masked_fill(running.ended, EOS_ID)
            log_probs = log_probs.masked_fill(running.ended, 0)
        return Running(
            running.images,
            torch.cat([history, tokens[..., None]], dim=2),
            running.log_probs + log_probs,
            parents,
        )

    def decided(self, running: Running) -> Tensor:
        """Return which images are done, (B,): all their captions have ended."""
        return running.ended.all(1)

    def _draw(self, logits: Tensor, draws: Tensor, running: Running) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and tokens (B, K) at quantiles `draws` (B, K) of the nucleus."""
        allowed = logits.float().log_softmax(2)  # (B, K or 1, V)
        forbid(allowed, running.tokens, config=self.config)
        num_likeliest = min(self.config.top_k or allowed.shape[2], allowed.shape[2])
        likeliest, order = allowed.topk(num_likeliest)  # sorted
        probs = (likeliest / self.config.temperature).softmax(2)
        cumulative = probs.cumsum(2)
        # Rounding may leave the sum below top_p; forbidden tokens would then follow.
        in_nucleus = (cumulative - probs < self.config.top_p) & (probs > 0)
        mass = (probs * in_nucleus).sum(2, keepdim=True)
        draws = draws.unflatten(1, (allowed.shape[1], -1))  # (B, K, 1) or (B, 1, K)
        ranks = torch.searchsorted(cumulative, draws * mass, right=True)
        last = (in_nucleus.sum(2, keepdim=True) - 1).clamp(min=0)  # NaN logits have no nucleus
        ranks = torch.minimum(ranks, last)
        tokens = order.gather(2, ranks)
        return allowed.gather(2, tokens).flatten(1), tokens.flatten(1)
