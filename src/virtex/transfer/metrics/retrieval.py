"""Metrics of retrieval: ranks of matching texts and images by descending score, and recall at K.

A wrong one that ties with the right one is ranked before it, so constant scores earn nothing.

Shapes: I images, K texts, each of which belongs to one image.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virtex.transfer.metrics.classification import check_scores

Scores = NDArray[np.floating]


def best_text_ranks(
    scores: Scores, is_own: NDArray[np.bool_], others: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the rank (I,), from 1, of each image's best own text among the texts of other images.

    Args:
        scores: (I, K) of each image with each text.
        is_own: (I, K) whether the text belongs to the image; true at least once for each image.
        others: (K,) whether the text counts.
    """
    check_scores(scores)
    best = np.where(is_own, scores, -np.inf).max(1, keepdims=True)  # (I, 1)
    return 1 + ((scores >= best) & ~is_own & others).sum(1)


def count_at_least(scores: Scores, own_scores: Scores) -> NDArray[np.int64]:
    """Return for each text (K,) the number of images that score at least as high as its own.

    Summed over all images, its own included, this is the rank of its own image.

    Args:
        scores: (I, K) of some of the images.
        own_scores: (K,) of each text with its own image.
    """
    check_scores(scores)
    return (scores >= own_scores).sum(0)


def recall_at_k(ranks: NDArray[np.integer], *, at: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return the fraction of ranks up to each k, as `R@k`, and the median rank."""
    recall = {f"R@{k}": float((ranks <= k).mean()) for k in at}
    return {**recall, "median_rank": float(np.median(ranks))}
