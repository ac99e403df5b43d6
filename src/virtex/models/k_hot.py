"""Classification losses for K-hot targets: any number of true classes for each example.

The softmax loss is that of Desai and Johnson, CVPR 2021; the weights are those of Huang et al.,
"Classification Done Right for Vision-Language Pre-Training" (SuperClass, NeurIPS 2024). Targets are
lists of distinct classes, since a caption has few of 10,000 tokens.

Shapes: B examples, V classes, K targets of an example, padded with NO_TARGET.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, softplus
from torch.nn.utils.rnn import pad_sequence

from virtex import distributed
from virtex.models.packing import rounded_up

NO_TARGET = -1
TARGETS_MULTIPLE = 8
"""Targets are padded to a multiple of this many, so that few shapes occur."""
LEAST_WEIGHT = 1e-12
"""Smallest divisor of a loss, so that an example whose targets have weight 0 has loss 0."""


def pad_targets(rows: Sequence[Tensor]) -> Tensor:
    """Return the targets (B, K) of B examples, each with a row of distinct classes."""
    targets = pad_sequence(list(rows), batch_first=True, padding_value=NO_TARGET)
    lacking = rounded_up(targets.shape[1], TARGETS_MULTIPLE) - targets.shape[1]
    return pad(targets, (0, lacking), value=NO_TARGET)


def softmax_losses(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return minus the mean log-probability of each example's targets, (B,); 0 without targets.

    Args:
        logits: (B, V), one softmax over all classes.
        targets: (B, K), each example's distinct classes.
        weights: (V,) of the classes, for a weighted mean.
    """
    classes = targets.clamp(min=0)
    is_target = (targets != NO_TARGET).float()
    weight = is_target if weights is None else is_target * weights[classes]
    log_probs = logits.log_softmax(1).gather(1, classes)  # (B, K)
    return -(weight * log_probs).sum(1) / weight.sum(1).clamp(min=LEAST_WEIGHT)


def bce_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of each example (B,), summed over all V classes.

    For a logit x with target y, 0 or 1, it is log(1 + exp(x)) - x y.
    """
    is_target = (targets != NO_TARGET).float()
    of_targets = logits.gather(1, targets.clamp(min=0))  # (B, K)
    return softplus(logits).sum(1) - (is_target * of_targets).sum(1)


class DocumentFrequencies(nn.Module):
    """Number of training examples in which each class occurred, over all processes.

    SuperClass weights class c by log(|D| / (1 + df(c))), where df(c) of |D| examples have class c.
    Its code, and ours, has log((|D| + 1) / (1 + df(c))), which is never negative, and counts a
    batch before weighting it. Its counts are floating point; ours are integers.
    """

    counts: Tensor
    num_examples: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("num_examples", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def count(self, pieces: Sequence[Tensor]) -> None:
        """Count the distinct targets (B, K) of each piece of a batch, on all processes."""
        own = torch.zeros_like(self.counts)
        for targets in pieces:
            is_target = (targets != NO_TARGET).flatten().long()
            own.scatter_add_(0, targets.clamp(min=0).flatten(), is_target)
        self.counts += distributed.total(own)
        self.num_examples += distributed.world_size() * sum(map(len, pieces))

    def weights(self) -> Tensor:
        """Return the weight (V,) of each class; 0 for one that occurred in every example."""
        return ((self.num_examples + 1) / (self.counts + 1)).log()
