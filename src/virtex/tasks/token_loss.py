"""Token classification beside another loss: the captions' tokens, from the same pooled features.

A decoder teaches a backbone slowly, as it can lower its loss by language alone at first; the set of
a caption's tokens (Desai and Johnson, CVPR 2021, token classification) teaches the backbone alone.
Their sum shares one pass through the backbone, after SuperCLIP (NeurIPS 2025, arXiv 2512.14480),
which adds this loss to a contrastive one.

Shapes: B images, C channels, V vocabulary, K distinct tokens of an image, padded with NO_TARGET.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from virtex.models.k_hot import pad_targets, softmax_losses
from virtex.models.linear import Linear
from virtex.tokens import NUM_SPECIAL


class TokenLoss(nn.Module):
    """A linear layer on pooled features, and a softmax over the vocabulary for all tokens."""

    def __init__(self, num_channels: int, vocab_size: int) -> None:
        super().__init__()
        self.output = Linear(num_channels, vocab_size)

    def forward(self, grid: Tensor, targets: Tensor) -> Tensor:
        """Return minus the mean log-probability of an image's tokens, a mean over the images.

        Args:
            grid: (B, C, h, w) features.
            targets: (B, K), of `token_targets`.
        """
        logits = self.output(grid.mean((2, 3))).float()  # (B, V)
        return softmax_losses(logits, targets).mean()


def token_targets(captions: Sequence[Tensor]) -> Tensor:
    """Return the distinct ordinary tokens (B, K) of images, given all token ids of each."""
    return pad_targets([distinct_tokens(tokens) for tokens in captions])


def distinct_tokens(tokens: Tensor) -> Tensor:
    """Return the distinct ordinary tokens of captions (T,), in ascending order."""
    distinct = tokens.unique()
    return distinct[distinct >= NUM_SPECIAL]
