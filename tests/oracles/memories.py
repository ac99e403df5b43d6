"""Slow twins of what MoCo and PIRL compute: one pair at a time, in Python's floats."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

Vector = Sequence[float]


def cosine(left: Vector, right: Vector) -> float:
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / math.hypot(*left) / math.hypot(*right)


def info_nce(
    queries: Sequence[Vector], keys: Sequence[Vector], queue: Sequence[Vector], temperature: float
) -> float:
    """He et al. 2020, equation (1), mean over the queries."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        scores = [math.exp(cosine(query, other) / temperature) for other in (key, *queue)]
        losses.append(-math.log(scores[0] / sum(scores)))
    return sum(losses) / len(losses)


def nce(
    features: Sequence[Vector],
    positives: Sequence[Vector],
    negatives: Sequence[Sequence[Vector]],
    temperature: float,
) -> float:
    """PIRL's estimator: a positive and its own negatives for each feature; mean over them."""
    losses = []
    for feature, positive, others in zip(features, positives, negatives, strict=True):
        pairs = [math.exp(cosine(feature, other) / temperature) for other in (positive, *others)]
        shares = [pair / sum(pairs) for pair in pairs]
        losses.append(-math.log(shares[0]) - sum(math.log(1 - share) for share in shares[1:]))
    return sum(losses) / len(losses)


def first_in_first_out(first: Iterable[int], pushes: Iterable[Iterable[int]]) -> list[int]:
    """Return the keys of a full queue after pushes, oldest first."""
    held = list(first)
    queue = deque(held, maxlen=len(held))
    for pushed in pushes:
        queue.extend(pushed)
    return list(queue)


def moving_averages(
    bank: Sequence[Vector], index: Sequence[int], features: Sequence[Vector], momentum: float
) -> list[list[float]]:
    """Each entry moved once towards the last feature of its example, and made of length 1."""
    moved = [list(entry) for entry in bank]
    for example, feature in dict(zip(index, features, strict=True)).items():
        entry = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(bank[example], feature, strict=True)
        ]
        moved[example] = [value / math.hypot(*entry) for value in entry]
    return moved
