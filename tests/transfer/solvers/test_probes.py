"""Probes: each learns what can be learned, agrees with a plainer twin, and repeats itself."""

import operator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from virtex.errors import ConfigError
from virtex.transfer.linear import accuracies
from virtex.transfer.solvers import probes
from virtex.transfer.solvers.probes import (
    NeighborConfig,
    SgdConfig,
    held_out_split,
    logistic_scores,
    neighbor_fractions,
    neighbor_scores,
    sgd_scores,
)

CENTERS = np.random.default_rng(7).normal(size=(6, 12))
CPU = torch.device("cpu")


def blobs(seed: int, num_images: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=num_images)
    features = CENTERS[labels] + spread * rng.normal(size=(num_images, 12))
    return features.astype(np.float32), labels


TRAIN, LABELS = blobs(0, 300)
TEST, TEST_LABELS = blobs(1, 200)


def test_all_probes_come_near_the_best_possible_accuracy() -> None:
    nearest_center = ((TEST[:, None] - CENTERS) ** 2).sum(2).argmin(1)
    best = (nearest_center == TEST_LABELS).mean()
    logistic, *_ = logistic_scores(TRAIN, LABELS, TEST, num_classes=6, seed=0)
    sgd = sgd_scores(
        TRAIN, LABELS, TEST, num_classes=6, config=SgdConfig(epochs=20), device=CPU, seed=0
    )
    votes = neighbor_scores(TRAIN, LABELS, TEST, num_classes=6, config=NeighborConfig())
    for scores in (logistic, sgd, votes):
        assert accuracies(TEST_LABELS, scores)["top1"] / 100 > best - 0.05


def test_logistic_does_not_mind_the_scale_of_a_channel() -> None:
    scale = np.geomspace(1e-3, 1e3, 12).astype(np.float32)
    plain, cost, _ = logistic_scores(TRAIN, LABELS, TEST, num_classes=6, seed=0)
    scaled, same, _ = logistic_scores(TRAIN * scale, LABELS, TEST * scale, num_classes=6, seed=0)
    assert cost == same
    np.testing.assert_allclose(scaled, plain, atol=0.02)


@pytest.mark.parametrize("limit", [2, 1000])
def test_a_fit_short_of_its_optimum_is_said_once_in_a_line(limit, caplog, recwarn, monkeypatch):
    monkeypatch.setattr(probes, "MAX_ITERATIONS", limit)
    logistic_scores(TRAIN, LABELS, TEST, num_classes=6, seed=0)
    expected = ["had not reached its optimum after 2 iterations"] if limit == 2 else []
    assert len(caplog.messages) == len(expected)
    assert all(map(operator.contains, caplog.messages, expected))
    assert not recwarn.list


def test_logistic_gives_the_lowest_score_to_a_class_it_never_saw() -> None:
    few = LABELS != 4
    scores, *_ = logistic_scores(TRAIN[few], LABELS[few], TEST, num_classes=6, seed=0)
    assert (scores.argmin(axis=1) == 4).all()
    assert np.isfinite(scores).all()


def test_the_held_out_fifth_is_drawn_evenly_from_all_classes() -> None:
    labels = np.repeat(np.arange(4), 50)
    fitting, held_out = held_out_split(labels, seed=3)
    assert sorted([*fitting, *held_out]) == list(range(200))
    assert np.bincount(labels[held_out]).tolist() == [10, 10, 10, 10]
    assert held_out.tolist() != held_out_split(labels, seed=4)[1].tolist()


def test_the_only_image_of_the_second_class_is_fitted_to() -> None:
    for number in range(5, 20):
        labels = np.array([0] * number + [1])
        fitting, held_out = held_out_split(labels, seed=0)
        assert number in fitting
        assert len(held_out) > 0
        features = np.random.default_rng(0).normal(size=(number + 1, 3)).astype(np.float32)
        scores, *_ = logistic_scores(features, labels, features, num_classes=2, seed=0)
        assert scores.shape == (number + 1, 2)


def test_a_layer_that_diverges_is_an_error_that_names_the_rate() -> None:
    config = SgdConfig(epochs=20, lr=1e4, weight_decay=1.0)
    with pytest.raises(ConfigError, match=r"diverged with sgd.lr 10000.0 and sgd.weight_decay 1.0"):
        sgd_scores(TRAIN, LABELS, TEST, num_classes=6, config=config, device=CPU, seed=0)


def test_a_cost_that_no_image_can_choose_is_the_default_and_reported(caplog) -> None:
    caplog.set_level("INFO", logger="virtex")
    labels = np.arange(6)
    features = CENTERS[labels].astype(np.float32)
    fitting, held_out = held_out_split(labels, seed=0)
    assert (len(fitting), len(held_out)) == (6, 0)
    scores, *choice = logistic_scores(features, labels, TEST, num_classes=6, seed=0)
    assert choice == [1.0, 0]
    assert "cost 1, which was not chosen: of 6 images of 6 classes none" in caplog.text
    twin = LogisticRegression(C=1.0, max_iter=1000).fit(
        StandardScaler().fit_transform(features), labels
    )
    scaled = StandardScaler().fit(features).transform(TEST)
    np.testing.assert_allclose(scores, twin.predict_log_proba(scaled), atol=1e-4)


def test_the_cost_is_chosen_on_classes_with_several_images(caplog) -> None:
    caplog.set_level("INFO", logger="virtex")
    labels = np.array([0] * 8 + [1, 2, 3, 4] + [5] * 7)
    fitting, held_out = held_out_split(labels, seed=0)
    assert np.bincount(labels[held_out], minlength=6).tolist() == [2, 0, 0, 0, 0, 1]
    assert np.isin(labels[held_out], labels[fitting]).all()
    features = (CENTERS[labels] + 0.5 * TEST[: len(labels)]).astype(np.float32)
    _, cost, num_held_out = logistic_scores(features, labels, TEST, num_classes=6, seed=0)
    assert cost in probes.COSTS
    assert num_held_out == 3
    assert not caplog.messages


def test_sgd_repeats_itself_exactly_and_leaves_the_global_generator_alone() -> None:
    config = SgdConfig(epochs=2)
    before = torch.get_rng_state()
    first, again, other = (
        sgd_scores(TRAIN, LABELS, TEST, num_classes=6, config=config, device=CPU, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_neighbors_vote_as_in_scikit_learn(temperature: float) -> None:
    twin = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / temperature)
    ).fit(TRAIN, LABELS)
    config = NeighborConfig(temperature=temperature)
    votes = neighbor_scores(TRAIN, LABELS, TEST, num_classes=6, config=config, chunk_size=64)
    shares = votes / votes.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, twin.predict_proba(TEST), atol=1e-4)


def test_fractions_are_the_votes_for_one_class_an_image_and_independent_for_several() -> None:
    config = NeighborConfig(num_neighbors=7)
    one_hot = np.eye(6, dtype=bool)[LABELS]
    votes = neighbor_scores(TRAIN, LABELS, TEST, num_classes=6, config=config)
    shares = neighbor_fractions(TRAIN, one_hot, TEST, config=config, chunk_size=64)
    np.testing.assert_allclose(shares, votes / votes.sum(axis=1, keepdims=True), atol=1e-6)
    several = np.concatenate([one_hot, ~one_hot[:, :1]], axis=1)
    more = neighbor_fractions(TRAIN, several, TEST, config=config)
    np.testing.assert_allclose(more[:, :6], shares, atol=1e-6)
    np.testing.assert_allclose(more[:, 6], 1 - shares[:, 0], atol=1e-6)


def test_all_images_vote_where_there_are_fewer_than_neighbours() -> None:
    few = neighbor_fractions(TRAIN[:3], np.eye(3, dtype=bool), TEST, config=NeighborConfig())
    assert few.shape == (len(TEST), 3)
    np.testing.assert_allclose(few.sum(axis=1), 1, atol=1e-6)


def test_a_tiny_temperature_does_not_overflow() -> None:
    config = NeighborConfig(temperature=1e-4)
    votes = neighbor_scores(TRAIN, LABELS, TEST, num_classes=6, config=config)
    assert np.isfinite(votes).all()
    assert (votes.max(axis=1) >= 1).all()


def test_top5_is_given_only_where_there_are_more_than_five_classes() -> None:
    assert set(accuracies(TEST_LABELS, np.eye(6)[TEST_LABELS])) == {"top1", "top5"}
    assert set(accuracies(np.array([0, 1]), np.eye(2))) == {"top1"}
