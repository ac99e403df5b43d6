"""Nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020.

Section 3.1; `top_k` (Fan et al., ACL 2018, section 5.3) cuts the distribution before `top_p` does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.models.decoding_config import DecodingConfig
from virtex.models.running import Running, forbid
from virtex.tokens import EOS_ID


@dataclass(frozen=True)
class Sampling:
    """Draws each caption by itself from the nucleus of the model's distribution."""

    config: DecodingConfig
    draws: Tensor
    """(B, K, max_steps) in [0, 1), all drawn ahead: no caption disturbs another's."""

    def extend(self, running: Running, logits: Tensor) -> Running:
        """One more token for each caption.

        Args:
            running: K captions of each image, or at first one, from which all K go on.
            logits: (B, K or 1, V).
        """
        num_parents, position = running.tokens.shape[1:]
        draws = self.draws[running.images, :, position]  # (B, K)
        log_probs, tokens = self._draw(logits, draws, running)
        size = draws.shape[1]
        parents = None
        if num_parents != size:
            parents = torch.zeros_like(draws, dtype=torch.int64)
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
        """Images all of whose captions have ended, (B,)."""
        return running.ended.all(1)

    def _draw(self, logits: Tensor, draws: Tensor, running: Running) -> tuple[Tensor, Tensor]:
        """Log-probabilities and tokens (B, K) at `draws` (B, K) of the cumulative distribution."""
        allowed = logits.float().log_softmax(2)  # (B, K or 1, V)
        forbid(allowed, running.tokens, config=self.config)
        num_likeliest = min(self.config.top_k or allowed.shape[2], allowed.shape[2])
        likeliest, order = allowed.topk(num_likeliest)  # sorted
        probs = (likeliest / self.config.temperature).softmax(2)
        cumulative = probs.cumsum(2)
        # Rounding may leave the sum below top_p, where what is forbidden would come next.
        in_nucleus = (cumulative - probs < self.config.top_p) & (probs > 0)
        mass = (probs * in_nucleus).sum(2, keepdim=True)
        draws = draws.unflatten(1, (allowed.shape[1], -1))  # (B, K, 1) or (B, 1, K)
        ranks = torch.searchsorted(cumulative, draws * mass, right=True)
        last = (in_nucleus.sum(2, keepdim=True) - 1).clamp(min=0)  # no nucleus: all is NaN
        ranks = torch.minimum(ranks, last)
        tokens = order.gather(2, ranks)
        return allowed.gather(2, tokens).flatten(1), tokens.flatten(1)
