"""Slow twins of the losses of K-hot targets: one example and one class at a time."""

import math


def softmax_loss(
    logits: list[list[float]], targets: list[list[int]], weights: list[float] | None = None
) -> float:
    """The mean over examples of minus the (weighted) mean log-probability of their targets."""
    total = 0.0
    for scores, own in zip(logits, targets, strict=True):
        denominator = sum(math.exp(score) for score in scores)
        shares = [weights[c] if weights else 1.0 for c in own]
        for c, share in zip(own, shares, strict=True):
            if sum(shares) > 0:
                total -= share / sum(shares) * math.log(math.exp(scores[c]) / denominator)
    return total / len(logits)


def bce_loss(logits: list[list[float]], targets: list[list[int]]) -> float:
    """The mean over examples of the sum over classes of each one's binary cross-entropy."""
    total = 0.0
    for scores, own in zip(logits, targets, strict=True):
        for c, score in enumerate(scores):
            prob = 1 / (1 + math.exp(-score))
            total -= math.log(prob if c in own else 1 - prob)
    return total / len(logits)


def idf_weights(documents: list[list[int]], num_classes: int) -> list[float]:
    """log((|D| + 1) / (1 + df)) of each class, among all the documents so far."""
    frequencies = [sum(c in document for document in documents) for c in range(num_classes)]
    return [math.log((len(documents) + 1) / (1 + df)) for df in frequencies]
