"""Metrics of retrieval: ranks of what belongs together, 1 being the best, and recall of them.

What scores as high as the right one counts as ranked before it, so constant scores earn nothing.

Shapes: I images, K texts, each of which belongs to one image.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]


def best_text_ranks(
    scores: Scores, is_own: NDArray[np.bool_], others: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(I,) the place of each image's best own text among the texts of other images.

    Args:
        scores: (I, K) of each image with each text.
        is_own: (I, K) whether the text belongs to the image; one at least.
        others: (K,) the texts that count.
    """
    _check(scores)
    best = np.where(is_own, scores, -np.inf).max(1, keepdims=True)  # (I, 1)
    return 1 + ((scores >= best) & ~is_own & others).sum(1)


def count_at_least(scores: Scores, own_scores: Scores) -> NDArray[np.int64]:
    """(K,) how many of the images fit each text as well as its own image does, or better.

    Summed over all images, its own included, this is the rank of its own.

    Args:
        scores: (I, K) of some of the images.
        own_scores: (K,) of each text with its own image.
    """
    _check(scores)
    return (scores >= own_scores).sum(0)


def recall_at_k(ranks: NDArray[np.integer], *, at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """The share of ranks that are at most k, as `R@k`, and the median rank."""
    shares = {f"R@{k}": float((ranks <= k).mean()) for k in at}
    return {**shares, "median_rank": float(np.median(ranks))}


def _check(scores: Scores) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity: a ranking of them means nothing")
