"""Metrics of classification; every number is a fraction from 0 to 1."""

import numpy as np
from numpy.typing import NDArray

from virtex.errors import DataError


def average_precision(present: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Return the area under the precision-recall steps, without interpolation.

    That is the sum over thresholds of (gain in recall) x (precision), as scikit-learn defines it;
    equal scores share a threshold. VOC's own 11-point and interpolated areas differ.

    Args:
        present: (N,) whether the class is present in each image; true at least once.
        scores: (N,) higher where the class is more likely; finite.
    """
    check_scores(scores)
    if not present.any():
        raise ValueError("average precision needs at least one image that shows the class")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(present[order])  # (N,)
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits_at = hits[last_of_tie]
    precision = hits_at / (last_of_tie + 1)
    return float(np.sum(np.diff(hits_at, prepend=0) * precision) / hits[-1])


def average_precisions(
    targets: NDArray[np.integer], scores: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the average precision of each class over the images whose label for it is known.

    Args:
        targets: (N, K) 1 present, -1 absent, 0 unknown (left out of that class).
        scores: (N, K), higher where the class is more likely.

    Returns:
        (K,) values from 0 to 1.
    """
    known = targets != 0
    values = [
        average_precision(targets[known[:, k], k] > 0, scores[known[:, k], k])
        for k in range(targets.shape[1])
    ]
    return np.array(values)


def top_accuracies(ranks: NDArray[np.integer], *, num_classes: int) -> dict[str, float]:
    """Return the fraction of true ranks (N,) that are 1, and up to 5 if there are more classes."""
    return {f"top{k}": float((ranks <= k).mean()) for k in (1, 5) if k == 1 or num_classes > k}


def true_ranks(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the rank of the true class of each image (N,) by descending score, from 1.

    A class that ties with the true one counts as ranked before it, so constant scores earn nothing.

    Args:
        labels: (N,) the true class.
        scores: (N, K) of each class.
    """
    check_scores(scores)
    true_scores = np.take_along_axis(scores, labels[:, None], axis=1)  # (N, 1)
    return (scores >= true_scores).sum(axis=1)


def check_scores(scores: NDArray[np.floating]) -> None:
    """Raise DataError for scores that are NaN or infinite, of which no ranking means anything."""
    if not np.isfinite(scores).all():
        raise DataError(
            "scores hold NaN or infinity, and cannot be ranked: what gave them has diverged. Try a "
            "lower learning rate, or weights of an earlier step."
        )
