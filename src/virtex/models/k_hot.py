"""K-hot targets: losses of a classifier whose examples have any number of true classes.

The softmax loss is that of Desai and Johnson, CVPR 2021; the weights are those of
Huang et al., "Classification Done Right for Vision-Language Pre-Training" (SuperClass, NeurIPS
2024). Targets are lists of different classes, as one of 10,000 tokens is rarely among a caption's.

Shapes: B examples, V classes, K targets of an example, padded with NO_TARGET.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from virtex import distributed

NO_TARGET = -1
LEAST_WEIGHT = 1e-12
"""Divides the loss of an example whose targets all weigh nothing: it is 0, not undefined."""


def softmax_losses(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Minus the mean log-probability of each example's targets, (B,); 0 for one without any.

    Args:
        logits: (B, V), one softmax over all classes.
        targets: (B, K), each example's different classes.
        weights: (V,) of classes, for a weighted mean; all alike by default.
    """
    classes = targets.clamp(min=0)
    is_target = (targets != NO_TARGET).float()
    shares = is_target if weights is None else is_target * weights[classes]
    log_probs = logits.log_softmax(1).gather(1, classes)  # (B, K)
    return -(shares * log_probs).sum(1) / shares.sum(1).clamp(min=LEAST_WEIGHT)


def bce_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of all V classes of each example, summed to (B,).

    Of a logit x and its target y, 0 or 1, it is log(1 + exp(x)) - x y.
    """
    is_target = (targets != NO_TARGET).float()
    of_targets = logits.gather(1, targets.clamp(min=0))  # (B, K)
    return softplus(logits).sum(1) - (is_target * of_targets).sum(1)


class DocumentFrequencies(nn.Module):
    """In how many of the examples seen in training each class occurred, over all processes.

    SuperClass weighs class c by log(|D| / (1 + df(c))) with |D| examples of which
    df(c) show c. Its code, and ours, takes log((|D| + 1) / (1 + df(c))), which is never negative,
    and counts a batch before weighing it. Its counts are of floating point; ours are exact.
    """

    counts: Tensor
    num_examples: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("num_examples", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def count(self, targets: Tensor) -> None:
        """Count the different targets (B, K) of this process's share, and all others' shares."""
        classes = targets.clamp(min=0).flatten()
        is_target = (targets != NO_TARGET).flatten().long()
        own = torch.zeros_like(self.counts).scatter_add(0, classes, is_target)
        self.counts += distributed.total(own)
        self.num_examples += distributed.world_size() * len(targets)

    def weights(self) -> Tensor:
        """The weight (V,) of each class; 0 for one that every example showed."""
        return ((self.num_examples + 1) / (self.counts + 1)).log()
