"""Token classification beside another loss: the captions' tokens, from the same pooled features.

A decoder teaches a backbone slowly, as it can lower its loss by language alone at first; a contrast
is met by few features where the batch is small. The set of a caption's tokens (Desai and Johnson,
CVPR 2021, token classification) teaches the backbone alone. The sum shares one pass through the
backbone, as SuperCLIP (Zhao et al., NeurIPS 2025, arXiv 2512.14480) adds SuperClass's loss to a
contrast.

Shapes: B images, C channels, V vocabulary, K distinct tokens of an image, padded with NO_TARGET.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from virtex.errors import out_of_range
from virtex.models.backbone import Backbone
from virtex.models.k_hot import DocumentFrequencies, pad_targets, softmax_losses
from virtex.models.linear import Linear
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData
from virtex.tokens import NUM_SPECIAL

NAME = "token_targets"
"""Name of the targets in a batch."""
MAX_WEIGHT = 1000.0


@dataclass(frozen=True, kw_only=True)
class WithTokensConfig(TaskConfig):
    """Options of token classification beside a task's own loss."""

    token_weight: float = 0.0
    """Weight of a further loss, token classification from the same pooled features; 0 leaves it
    out."""
    token_idf: bool = False
    """Weight its tokens by inverse document frequency, counted during training (SuperClass)."""

    def token_problems(self) -> list[str]:
        """Return the problems of these options."""
        problems = out_of_range(self, {"token_weight": (0.0, MAX_WEIGHT)})
        if self.token_idf and self.token_weight == 0:
            problems.append("token_idf needs a token_weight above 0: give one, or leave it out")
        return problems

    def token_loss(self, backbone: Backbone, data: TaskData) -> "TokenLoss | None":
        """Return the loss if it has a weight."""
        if not self.token_weight:
            return None
        vocab_size = data.vocabulary.vocab_size
        return TokenLoss(
            backbone.num_channels, vocab_size, weight=self.token_weight, idf=self.token_idf
        )


class TokenLoss(nn.Module):
    """A linear layer on pooled features, and a softmax over the vocabulary for all tokens."""

    def __init__(
        self, num_channels: int, vocab_size: int, *, weight: float = 1.0, idf: bool = False
    ) -> None:
        super().__init__()
        self.weight = weight
        self.output = Linear(num_channels, vocab_size)
        self.frequencies = DocumentFrequencies(vocab_size) if idf else None

    def count(self, pieces: Sequence[Batch]) -> None:
        """Count the tokens of a training step, before the first piece is weighted by them."""
        if self.frequencies is not None:
            self.frequencies.count([piece[NAME] for piece in pieces])

    def forward(self, pooled: Tensor, targets: Tensor) -> Tensor:
        """Return minus the mean log-probability of each image's tokens, (B,).

        Args:
            pooled: (B, C) features.
            targets: (B, K), of `token_targets`.
        """
        weights = None if self.frequencies is None else self.frequencies.weights()
        return softmax_losses(self.output(pooled).float(), targets, weights)


class WithTokens(Task):
    """A pretext task that has a token loss beside its own, if that has a weight."""

    token_loss: TokenLoss | None

    def prepare_step(self, pieces: list[Batch], *, seed: int) -> list[Batch]:
        """Count the tokens of a step, if the token loss weighs them."""
        del seed
        if self.token_loss:
            self.token_loss.count(pieces)
        return pieces


def token_targets(captions: Sequence[Tensor]) -> Tensor:
    """Return the distinct ordinary tokens (B, K) of images, given all token ids of each."""
    return pad_targets([distinct_tokens(tokens) for tokens in captions])


def distinct_tokens(tokens: Tensor) -> Tensor:
    """Return the distinct ordinary tokens of captions (T,), in ascending order."""
    distinct = tokens.unique()
    return distinct[distinct >= NUM_SPECIAL]
