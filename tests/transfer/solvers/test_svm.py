"""SVMs solved together: each one's optimum is the one that scikit-learn finds alone."""

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.oracles.voc07_svm import one_by_one_scores, svm
from virtex.transfer.metrics.classification import average_precisions
from virtex.transfer.solvers import svm as module
from virtex.transfer.solvers.svm import (
    ACCURACY,
    FLAT,
    Problems,
    SharedFeatures,
    _lowest,
    held_out_folds,
    solve,
    svm_scores,
)

CPU = torch.device("cpu")
Data = tuple[NDArray[np.float32], NDArray[np.int8]]


def made_up(num_images: int, num_channels: int, *, seed: int = 0, num_classes: int = 4) -> Data:
    """Positive features of length 1 that all resemble each other, and signs that they tell of."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(99)
    latent = rng.normal(size=(num_images, 6))
    noise = rng.normal(size=(num_images, num_channels))
    features = np.exp(0.5 * latent @ world.normal(size=(6, num_channels)) / 2 + 0.3 * noise)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    planes, noise = world.normal(size=(6, num_classes)), rng.normal(size=(num_images, num_classes))
    values = latent @ planes + noise
    present = values > np.quantile(values, np.linspace(0.6, 0.9, num_classes), axis=0).diagonal()
    return features.astype(np.float32), np.where(present, 1, -1).astype(np.int8)


def with_constants(features: NDArray[np.float32]) -> NDArray[np.float32]:
    features = features.copy()
    features[:, :3], features[:, 3] = 0, 0.7
    return features


def with_copies(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([features[: len(features) // 2]] * 2)


def on_many_scales(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features * np.geomspace(1e-3, 30, features.shape[1]).astype(np.float32)


@pytest.mark.parametrize(
    ("num_images", "num_channels", "change"),
    [
        pytest.param(240, 30, None, id="more images than channels"),
        pytest.param(90, 200, None, id="more channels than images"),
        pytest.param(31, 30, None, id="as many images as channels and bias"),
        pytest.param(240, 30, with_constants, id="channels that never change"),
        pytest.param(90, 200, with_constants, id="the same with few images"),
        pytest.param(240, 30, with_copies, id="images twice"),
        pytest.param(90, 200, with_copies, id="few images, twice"),
        pytest.param(240, 30, on_many_scales, id="channels on many scales"),
        pytest.param(60, 2, None, id="two channels"),
    ],
)
def test_scores_are_those_of_fitting_one_by_one_to_a_tight_tolerance(
    num_images: int,
    num_channels: int,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (train, signs), (test, answers) = (
        made_up(num_images, num_channels, seed=seed) for seed in (0, 1)
    )
    if change:
        train, test = change(train), change(test)
    ours = svm_scores(train, signs, test, device=CPU)
    theirs = one_by_one_scores(train, signs, test, tol=1e-10)
    assert theirs.std(axis=0).min() > 10 * ACCURACY
    np.testing.assert_allclose(ours, theirs, atol=ACCURACY, rtol=0)
    mean_ap, expected = (100 * average_precisions(answers, s).mean() for s in (ours, theirs))
    assert mean_ap == pytest.approx(expected, abs=0.1)
    assert not caplog.records


@pytest.mark.parametrize("cost", [0.01, 10.0, 1000.0])
def test_each_problem_of_a_batch_has_its_own_images_and_cost(cost: float) -> None:
    features, signs = made_up(200, 40)
    left_out = np.random.default_rng(5).random((200, 4)) < 0.3
    weights = np.where(signs > 0, 2, 1) * ~left_out * np.array([cost, 1.0, 0.1, 10.0])
    shared = SharedFeatures.from_rows(torch.from_numpy(features))
    problems = Problems(torch.from_numpy(signs.T).double(), torch.from_numpy(weights.T))
    planes = solve(shared, problems, torch.zeros(4, shared.exact.shape[1]).double())
    ours = (planes @ shared.exact.T).T.numpy()  # (N, P)
    for k, own in enumerate((cost, 1.0, 0.1, 10.0)):
        kept = ~left_out[:, k]
        theirs = svm(own, tol=1e-10).fit(features[kept], signs[kept, k]).decision_function(features)
        np.testing.assert_allclose(ours[:, k], theirs, atol=ACCURACY, rtol=0)


def test_any_start_leads_to_the_same_optimum_within_the_proved_distance() -> None:
    features, signs = made_up(150, 25)
    shared = SharedFeatures.from_rows(torch.from_numpy(features))
    problems = Problems(torch.from_numpy(signs.T).double(), torch.full((4, 150), 3.0).double())
    starts = torch.randn(2, 4, 26, generator=torch.Generator().manual_seed(0)).double()
    first, second = (
        solve(shared, problems, scale * s) for scale, s in zip((0, 50), starts, strict=True)
    )
    assert ((first - second) @ shared.exact.T).abs().max() < 2 * ACCURACY


def test_folds_are_scikit_learns_and_hold_each_image_out_once() -> None:
    _, signs = made_up(100, 2)
    folds = held_out_folds(signs)
    assert (folds.sum(axis=1) == 1).all()
    counts = np.stack([folds[k].astype(int) @ (signs[:, k] > 0) for k in range(4)])  # (K, F)
    assert (np.ptp(counts, axis=1) <= 1).all()
    assert len({fold.tobytes() for fold in folds}) > 1


def test_a_line_search_ends_where_the_objective_is_lowest() -> None:
    draw = torch.Generator().manual_seed(0)
    residual, fall = torch.randn(2, 50, 80, generator=draw).double()
    fall = fall * torch.logspace(-3, 3, 50)[:, None]  # the lowest points are near and far
    weights = torch.rand(50, 80, generator=draw).double()
    plane, direction = torch.randn(2, 50, 7, generator=draw).double()
    slope, square = (plane * direction).sum(1), direction.square().sum(1)
    steep = slope - 2 * (weights * fall * residual.clamp_min(0)).sum(1)
    downhill = torch.where(steep > 0, -1, 1)
    fall, slope = downhill[:, None] * fall, downhill * slope
    length = _lowest(residual, fall, weights, slope=slope, square=square)
    slack = (residual - length[:, None] * fall).clamp_min(0)
    rise = slope + length * square - 2 * (weights * fall * slack).sum(1)
    assert (length > 0).all()
    assert length.max() / length.min() > 100
    assert (rise.abs() <= FLAT * steep.abs()).all()


def test_few_images_are_turned_to_a_basis_of_their_own_span() -> None:
    features, _ = made_up(30, 100)
    shared = SharedFeatures.from_rows(torch.from_numpy(features))
    rows = np.concatenate([features, np.ones((30, 1))], axis=1)
    assert shared.basis.shape == (101, 30)
    np.testing.assert_allclose(shared.basis.T @ shared.basis, np.eye(30), atol=1e-12)
    np.testing.assert_allclose(shared.exact @ shared.basis.T, rows, atol=1e-12)


def test_of_equally_good_costs_the_first_is_taken() -> None:
    signs = np.where(np.arange(60) % 3 == 0, 1, -1).astype(np.int8)[:, None]
    noise = np.random.default_rng(0).normal(size=(60, 4))
    train = (np.eye(4)[0] * signs + 0.05 * noise).astype(np.float32)  # any cost tells them apart
    expected = svm(0.01, tol=1e-10).fit(train, signs[:, 0]).decision_function(train)
    ours = svm_scores(train, signs, train, device=CPU)[:, 0]
    np.testing.assert_allclose(ours, expected, atol=ACCURACY)


def test_classes_solved_in_chunks_have_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    (train, signs), (test, _) = made_up(120, 20), made_up(50, 20, seed=1)
    whole = svm_scores(train, signs, test, device=CPU)
    monkeypatch.setattr(module, "MAX_PAIRS", 120 * 3 * 3)
    np.testing.assert_allclose(svm_scores(train, signs, test, device=CPU), whole, atol=2e-3)
    monkeypatch.setattr(module, "MAX_PAIRS", 1)
    np.testing.assert_allclose(svm_scores(train, signs, test, device=CPU), whole, atol=2e-3)


def test_an_svm_that_does_not_converge_is_reported_with_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_NEWTON_STEPS", 2)
    (train, signs), (test, _) = made_up(120, 20), made_up(50, 20, seed=1)
    with caplog.at_level(logging.WARNING, "virtex"):
        svm_scores(train, signs, test, device=CPU)
    assert "of 12 SVMs did not converge in 2 Newton steps" in caplog.text
    assert "where 0.001 is required" in caplog.text


@pytest.mark.gpu
def test_a_gpu_gives_the_processors_scores() -> None:
    (train, signs), (test, _) = made_up(240, 30), made_up(50, 30, seed=1)
    ours = svm_scores(train, signs, test, device=torch.device("cuda"))
    np.testing.assert_allclose(ours, svm_scores(train, signs, test, device=CPU), atol=2e-3)
