import numpy as np
import pytest

from tests.oracles.retrieval import slow_own_image_rank, slow_own_text_rank
from virtex.errors import DataError
from virtex.transfer.metrics.retrieval import best_text_ranks, count_at_least, recall_at_k
from virtex.transfer.retrieval import rank

OWNERS = np.array([0, 0, 1, 2, 2, 2, 3])


@pytest.fixture(params=[2, 1000], ids=["many ties", "few ties"])
def scores(request: pytest.FixtureRequest) -> np.ndarray:
    """(4, 7)"""
    return np.random.default_rng(0).integers(0, request.param, (4, 7)).astype(np.float32)


def test_ranks_are_those_counted_by_hand(scores: np.ndarray) -> None:
    is_own = np.arange(4)[:, None] == OWNERS
    found = best_text_ranks(scores, is_own, np.ones(7, bool))
    assert found.tolist() == [
        slow_own_text_rank(row, set(np.flatnonzero(own)))
        for row, own in zip(scores.tolist(), is_own, strict=True)
    ]
    expected = [slow_own_image_rank(scores[:, k].tolist(), own) for k, own in enumerate(OWNERS)]
    assert count_at_least(scores, scores[OWNERS, np.arange(7)]).tolist() == expected


def test_images_ranked_batch_by_batch_rank_as_all(scores: np.ndarray) -> None:
    whole = rank([(np.arange(4), scores)], OWNERS)
    parts = rank([(np.array([0, 1, 2]), scores[:3]), (np.array([3]), scores[3:])], OWNERS)
    assert whole.of_images.tolist() == parts.of_images.tolist()
    assert whole.of_texts.tolist() == parts.of_texts.tolist()


def test_an_image_that_was_not_seen_leaves_with_its_texts(scores: np.ndarray) -> None:
    kept = [0, 1, 3]
    found = rank([(np.array(kept), scores[kept])], OWNERS)
    texts = np.flatnonzero(OWNERS != 2)
    renumbered = np.searchsorted(kept, OWNERS[texts])
    expected = rank([(np.arange(3), scores[kept][:, texts])], renumbered)
    assert found.of_images.tolist() == expected.of_images.tolist()
    assert found.of_texts.tolist() == expected.of_texts.tolist()


def test_constant_scores_rank_last() -> None:
    found = rank([(np.arange(4), np.zeros((4, 7), np.float32))], OWNERS)
    assert found.of_texts.tolist() == [4] * 7
    assert found.of_images.tolist() == [7 - own + 1 for own in (2, 1, 3, 1)]


def test_recall_is_the_fraction_within_the_first_k() -> None:
    ranks = np.array([1, 2, 5, 6, 11, 40])
    assert recall_at_k(ranks) == pytest.approx(
        {"R@1": 1 / 6, "R@5": 3 / 6, "R@10": 4 / 6, "median_rank": 5.5}
    )


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        count_at_least(np.full((2, 2), np.nan), np.zeros(2))
