"""Classification metrics against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from tests.oracles.ranking import slow_average_precision, slow_top_k_accuracy
from virtex.errors import DataError
from virtex.transfer.metrics.classification import (
    average_precision,
    average_precisions,
    top_accuracies,
    true_ranks,
)

SCORES = st.integers(-3, 3).map(float)


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    num_images = draw(st.integers(1, 12))
    present = draw(arrays(bool, num_images).filter(lambda flags: flags.any()))
    return present, draw(arrays(np.float64, num_images, elements=SCORES))


@given(rankings())
def test_average_precision_equals_counting_by_hand_and_scikit_learn(ranking) -> None:
    present, scores = ranking
    value = average_precision(present, scores)
    assert value == pytest.approx(slow_average_precision(present, scores), abs=1e-12)
    assert value == pytest.approx(average_precision_score(present, scores), abs=1e-12)


def test_average_precision_is_one_for_a_perfect_ranking_and_the_fraction_for_no_ranking() -> None:
    present = np.array([True, False, True, False])
    assert average_precision(present, np.array([3.0, 1.0, 2.0, 0.0])) == 1.0
    assert average_precision(present, np.zeros(4)) == 0.5


def test_average_precision_of_a_class_nobody_shows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        average_precision(np.zeros(3, bool), np.zeros(3))


def test_scores_that_are_not_numbers_are_an_error() -> None:
    with pytest.raises(DataError, match="NaN"):
        average_precision(np.array([True, False]), np.array([np.nan, 0.0]))


def test_unknown_images_do_not_change_a_class() -> None:
    rng = np.random.default_rng(0)
    targets = rng.choice([-1, 1], (30, 4)).astype(np.int8)
    scores = rng.normal(size=(30, 4))
    before = average_precisions(targets, scores)
    more_targets = np.concatenate([targets, np.zeros((5, 4), np.int8)])
    more_scores = np.concatenate([scores, np.full((5, 4), 9.0)])
    np.testing.assert_array_equal(average_precisions(more_targets, more_scores), before)


@given(st.integers(0, 1000), st.integers(1, 5))
def test_top_k_accuracy_equals_counting_by_hand(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(6, size=20), rng.integers(4, size=(20, 6)).astype(float)
    expected = slow_top_k_accuracy(labels, scores, k)
    assert (true_ranks(labels, scores) <= k).mean() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_scikit_learn_where_no_scores_tie(k: int) -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(7, size=200), rng.normal(size=(200, 7))
    expected = top_k_accuracy_score(labels, scores, k=k, labels=range(7))
    assert (true_ranks(labels, scores) <= k).mean() == pytest.approx(expected)


def test_constant_scores_earn_no_accuracy() -> None:
    ranks = true_ranks(np.array([0, 1]), np.zeros((2, 9)))
    assert top_accuracies(ranks, num_classes=9) == {"top1": 0.0, "top5": 0.0}
