"""Linear SVMs of all classes, costs and folds, solved together on shared features.

Each problem is LIBLINEAR's L2-regularised squared hinge, the bias being one more feature, always 1:

    minimise over w   |w|^2 / 2 + sum over images i of weight_i * max(0, 1 - sign_i * w.x_i)^2

where weight_i is cost times class weight, and 0 for the images of the held-out fold. The solver is
the finite Newton method of Keerthi and DeCoste, "A Modified Finite Newton Method for Fast Solution
of Large Scale Linear SVMs", JMLR 6, 2005, applied to all problems at once: Newton directions come
from conjugate gradients, whose matrix products the problems share, and a line search finds the
minimum along them. The features are rotated once into the eigenbasis of their Gram matrix, where
every problem's Hessian is nearly diagonal, which preconditions the conjugate gradients.

The objective is 1-strongly convex, so a gradient of norm e proves that w is within e of the
optimum, and x.w within e * |x| of the optimal decision value. That is the stopping rule; gradients
are therefore computed in float64. Directions need no such accuracy and are computed in float32.

Departure from LIBLINEAR: it stops at a tolerance relative to the gradient at w = 0, which leaves
errors of some 1e-3 in decision values; here they are proved to be below that, and mostly near 1e-6.
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virtex.transfer.metrics.classification import average_precision

COSTS = (0.01, 0.1, 1.0, 10.0)
NUM_FOLDS = 3
POSITIVE_WEIGHT = 2.0
"""Class weight of images that show the class; that of the others is 1."""

ACCURACY = 1e-3
"""Largest error of decision values of the training images."""
ROUNDING = 1e-12
"""Relative error of a gradient in float64, below which no norm is required."""
MAX_NEWTON_STEPS = 100
RESIDUAL = 0.1
"""Residual of the Newton equation, relative to the first, at which conjugate gradients stop."""
MAX_CONJUGATE_STEPS = 500
MAX_LINE_STEPS = 30
FLAT = 0.01
"""Slope, relative to the first, at which a line search stops."""
MAX_PAIRS = 2**23
"""Pairs of problem and image solved together; each takes some 100 bytes."""

log = logging.getLogger("virtex")


def svm_scores(
    train_features: NDArray[np.float32],
    train_signs: NDArray[np.int8],
    test_features: NDArray[np.float32],
    *,
    device: torch.device,
) -> NDArray[np.float64]:
    """Return the decision values of each class's SVM, its cost chosen by cross-validation.

    The cost is the first with the best mean average precision over the held-out folds. SVMs that
    miss `ACCURACY` are reported in the log.

    Args:
        train_features: (N, C)
        train_signs: (N, K) 1 or -1.
        test_features: (M, C)
        device: Where to solve; instead of mps, which has no float64, the CPU.

    Returns:
        (M, K), signed distances from the separating planes, times |w|.
    """
    if device.type == "mps":
        device = torch.device("cpu")
    features = SharedFeatures.from_rows(torch.from_numpy(train_features).to(device))
    num_together = max(1, MAX_PAIRS // (NUM_FOLDS * len(train_signs)))  # classes
    parts = range(0, train_signs.shape[1], num_together)
    weights = torch.cat(
        [_class_weights(features, train_signs[:, part : part + num_together]) for part in parts]
    )  # (K, C + 1)
    weights = weights.cpu()
    test = torch.from_numpy(test_features).double()  # (M, C)
    return (test @ weights[:, :-1].T + weights[:, -1]).numpy()


@dataclass(frozen=True, eq=False)
class SharedFeatures:
    """Training features with a bias column, in the eigenbasis of their Gram matrix."""

    exact: Tensor
    """(N, R) float64"""
    rough: Tensor
    """(N, R) the same, float32"""
    basis: Tensor
    """(C + 1, R) orthonormal columns; R = min(N, C + 1)."""
    spectrum: Tensor
    """(R,) mean square of each column, float32"""
    longest: float
    """Norm of the longest row."""

    @classmethod
    def from_rows(cls, features: Tensor) -> Self:
        """Build from features (N, C)."""
        rows = torch.nn.functional.pad(features.double(), (0, 1), value=1.0)  # (N, C + 1)
        num_images, num_columns = rows.shape
        span = None
        if num_images < num_columns:  # the optimum is a sum of training images
            span = torch.linalg.qr(rows.T).Q  # (C + 1, N)
            rows = rows @ span
        basis = torch.linalg.eigh(rows.T @ rows).eigenvectors  # (R, R)
        exact = rows @ basis
        return cls(
            exact=exact,
            rough=exact.float(),
            basis=basis if span is None else span @ basis,
            spectrum=exact.square().mean(0).float(),
            longest=float(exact.norm(dim=1).max()),
        )


class Problems(NamedTuple):
    """P SVMs on the same features."""

    signs: Tensor
    """(P, N) 1 or -1, float64"""
    weights: Tensor
    """(P, N) costs of the images' squared slacks, float64; 0 leaves an image out."""


def _class_weights(features: SharedFeatures, signs: NDArray[np.int8]) -> Tensor:
    """Return each class's weights at its best cost (K, C + 1), the bias last."""
    num_classes = signs.shape[1]
    folds = held_out_folds(signs)  # (K, F, N)
    own = torch.from_numpy(signs.T).to(features.exact)  # (K, N)
    class_weights = torch.where(own > 0, POSITIVE_WEIGHT, 1.0).double()
    fitted = torch.from_numpy(~folds).to(class_weights) * class_weights[:, None]  # (K, F, N)
    all_signs = own.repeat_interleave(NUM_FOLDS, dim=0)  # (K * F, N)

    plane = features.exact.new_zeros(num_classes * NUM_FOLDS, features.exact.shape[1])
    planes, scores = [], []
    for cost in COSTS:  # each cost starts from the one before
        plane = solve(features, Problems(all_signs, cost * fitted.flatten(0, 1)), plane)
        planes.append(plane.view(num_classes, NUM_FOLDS, -1).mean(1))  # (K, R)
        scores.append(_held_out_precision(features, plane, signs, folds))
    best = np.argmax(scores, axis=0)  # (K,) the first of the best

    costs = torch.from_numpy(np.array(COSTS)[best]).to(class_weights)
    start = torch.stack([planes[cost][k] for k, cost in enumerate(best)])
    plane = solve(features, Problems(own, costs[:, None] * class_weights), start)
    return plane @ features.basis.T


def held_out_folds(signs: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Return whether an image is held out of a class's fold (K, F, N), as in scikit-learn."""
    from sklearn.model_selection import StratifiedKFold

    folds = np.zeros((signs.shape[1], NUM_FOLDS, len(signs)), bool)
    for of_class, own in zip(folds, signs.T, strict=True):
        splits = StratifiedKFold(NUM_FOLDS).split(own, own)
        for held_out, (_, indices) in zip(of_class, splits, strict=True):
            held_out[indices] = True
    return folds


def _held_out_precision(
    features: SharedFeatures, plane: Tensor, signs: NDArray[np.int8], folds: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the mean average precision (K,) over the folds of planes (K * F, R)."""
    scores = (plane @ features.exact.T).cpu().numpy().reshape(folds.shape)  # (K, F, N)
    values = [
        [average_precision(own[out] > 0, score[out]) for out, score in zip(*of_class, strict=True)]
        for own, *of_class in zip(signs.T, folds, scores, strict=True)
    ]
    return np.mean(values, axis=1)


def solve(features: SharedFeatures, problems: Problems, start: Tensor) -> Tensor:
    """Return each problem's optimum (P, R), float64; log the problems that miss `ACCURACY`.

    Args:
        start: (P, R) initial weights, in the features' basis.
    """
    exact = features.exact
    goals = _longest_gradients(features, problems)  # (P,)
    solution, left = start.clone(), torch.arange(len(start), device=start.device)
    for _ in range(MAX_NEWTON_STEPS):
        signs, weights = problems
        plane = solution[left]  # (p, R)
        residual = 1 - signs * (plane @ exact.T)  # (p, N)
        gradient = plane - 2 * (weights * signs * residual.clamp_min(0)) @ exact  # (p, R)
        lengths = gradient.norm(dim=1)
        open_ = lengths > goals[left]
        if not open_.any():
            return solution
        if not open_.all():
            problems = Problems(*(table[open_] for table in problems))
            left, plane, residual, gradient = (
                table[open_] for table in (left, plane, residual, gradient)
            )
        solution[left] = plane + _newton_step(features, problems, plane, residual, gradient)
    _warn(lengths[open_] * features.longest, num_problems=len(start))
    return solution


def _longest_gradients(features: SharedFeatures, problems: Problems) -> Tensor:
    """Return the gradient norm of each problem (P,) at which it counts as solved."""
    reach = 2 * problems.weights @ features.exact.norm(dim=1)
    return (ROUNDING * reach).clamp_min(ACCURACY / features.longest)


def _newton_step(
    features: SharedFeatures, problems: Problems, plane: Tensor, residual: Tensor, gradient: Tensor
) -> Tensor:
    """Return the step (p, R) to the minimum along the (truncated) Newton direction.

    Args:
        residual: (p, N) 1 - sign * decision value; its positive part is the slack.
    """
    active = (2 * problems.weights * (residual > 0)).float()  # (p, N)
    direction, change = _newton_direction(features, active, gradient.float())
    direction = direction.double()
    length = _lowest(
        residual,
        problems.signs * change,
        problems.weights,
        slope=(plane * direction).sum(1),
        square=direction.square().sum(1),
    )
    return length[:, None] * direction


def _newton_direction(
    features: SharedFeatures, active: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve H d = -gradient, H = 1 + X' diag(active) X, by conjugate gradients.

    Returns:
        d (p, R), and X d (p, N).
    """
    rough = features.rough
    scale = 1 + active.mean(1, keepdim=True) * features.spectrum * len(rough)  # (p, R) near H's
    direction, change = torch.zeros_like(gradient), torch.zeros_like(active)
    remainder = -gradient
    search = remainder / scale
    square = (remainder * search).sum(1)  # (p,) of the remainder, in the preconditioner's metric
    goal = RESIDUAL**2 * square
    for _ in range(MAX_CONJUGATE_STEPS):
        (i,) = torch.where(square > goal)  # the problems that are not done
        if not len(i):
            break
        along = search[i]
        image = along @ rough.T  # (i, N)
        bent = along + (active[i] * image) @ rough  # (i, R) H along
        length = (square[i] / (along * bent).sum(1))[:, None]
        direction[i] += length * along
        change[i] += length * image
        remainder[i] -= length * bent
        before, square = square, (remainder.square() / scale).sum(1)
        search[i] = remainder[i] / scale[i] + (square / before)[i, None] * along
    return direction, change


def _lowest(
    residual: Tensor, fall: Tensor, weights: Tensor, *, slope: Tensor, square: Tensor
) -> Tensor:
    """Return the length (p,) of the step that minimises, by Newton's method within a bracket.

    Args:
        residual: (p, N) 1 - sign * decision value.
        fall: (p, N) decrease of the residual for a step of length 1.
        weights: (p, N) costs of squared slacks.
        slope: (p,) slope of |w|^2 / 2 where the step begins.
        square: (p,) squared length of the direction.
    """
    weighted = weights * fall
    steep = (slope - 2 * (weighted * residual.clamp_min(0)).sum(1)).abs()
    low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
    length = torch.ones_like(slope)
    for _ in range(MAX_LINE_STEPS):
        slack = (residual - length[:, None] * fall).clamp_min(0)  # (p, N)
        rise = slope + length * square - 2 * (weighted * slack).sum(1)
        if (rise.abs() <= FLAT * steep).all():
            break
        curvature = square + 2 * (weighted * fall * (slack > 0)).sum(1)
        low, high = torch.where(rise < 0, length, low), torch.where(rise > 0, length, high)
        newton = length - rise / curvature
        middle = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        length = torch.where((newton > low) & (newton < high), newton, middle)
    return length


def _warn(distances: Tensor, *, num_problems: int) -> None:
    """Log that decision values may be further than `ACCURACY` from the optimum."""
    log.warning(
        "%d of %d SVMs did not converge in %d Newton steps: decision values may be off by up to "
        "%.2g, where %.2g is required. Scores of these classes are inexact; are the features "
        "on very different scales, or nearly all alike?",
        len(distances), num_problems, MAX_NEWTON_STEPS, float(distances.max()), ACCURACY,
    )  # fmt: skip
