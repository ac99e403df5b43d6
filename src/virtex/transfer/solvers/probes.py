"""Classifiers that are fitted to labelled features and score test features.

`logistic_scores` minimises L2-regularised cross-entropy on standardised features, to its optimum or
`MAX_ITERATIONS`; the cost is chosen on a held-out fifth of the training images of classes with
several, and is `DEFAULT_COST` where there are none. `sgd_scores` trains
a linear layer as Desai and Johnson, "VirTex", CVPR 2021, section 4.2. In `neighbor_scores` the k
most similar training images vote with weight exp(cosine / temperature), as in Wu et al.,
"Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section 3.4;
`neighbor_fractions` does the same for images of several classes.
"""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from virtex.errors import ConfigError, out_of_range

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

COSTS = tuple(float(cost) for cost in np.logspace(-5, 1, 7))
DEFAULT_COST = 1.0
"""Cost where no image can be held out, scikit-learn's default."""
HELD_OUT = 0.2
"""Fraction of the training images that the cost is chosen on."""
MAX_ITERATIONS = 1000
"""Iterations after which a logistic regression stops where it is."""
LOWEST = -1e6
SMALLEST, MOST = 1e-9, 10**9
"""Bounds of options that have none of their own."""
SMALL = 200_000_000
"""Products of features and classes below which threads cost more than they gain; on a machine with
other work, where they wait for each other, twenty times more."""

Values = NDArray[np.float32]
Labels = NDArray[np.int64]
Scores = NDArray[np.floating]
logger = logging.getLogger("virtex")


@dataclass(frozen=True)
class SgdConfig:
    """The linear layer of the paper's ImageNet-1k protocol."""

    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 256
    """Images in a step."""
    lr: float = 0.3
    """Learning rate of the first step; it falls to 0 by a cosine schedule, without warm-up."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 0.0
    """Weight decay of the layer's weights and bias."""

    def problems(self) -> list[str]:
        """Return what is wrong with the options, by their names on the command line."""
        ranges = {
            "epochs": (1, MOST), "batch_size": (1, MOST), "lr": (SMALLEST, MOST),
            "momentum": (0, 1), "weight_decay": (0, MOST),
        }  # fmt: skip
        return [f"sgd.{problem}" for problem in out_of_range(self, ranges)]


@dataclass(frozen=True)
class NeighborConfig:
    """The vote of the nearest training images."""

    num_neighbors: int = 20
    """Number of nearest training images that vote; all do where there are fewer."""
    temperature: float = 0.07
    """Smaller values give the nearest images more weight."""

    def problems(self) -> list[str]:
        """Return what is wrong with the options, by their names on the command line."""
        ranges = {"num_neighbors": (1, MOST), "temperature": (SMALLEST, MOST)}
        return [f"neighbors.{problem}" for problem in out_of_range(self, ranges)]


def logistic_scores(
    train_features: Values,
    train_labels: Labels,
    test_features: Values,
    *,
    num_classes: int,
    seed: int,
) -> tuple[Scores, float, int]:
    """Return log-probabilities of a logistic regression, its cost, and how that was chosen.

    Args:
        train_features: (N, C)
        train_labels: (N,)
        test_features: (M, C)

    Returns:
        Finite scores (M, K), the lowest for classes without training images; the cost; and the
        number of images on which it was chosen, 0 if it is `DEFAULT_COST` without a choice.
    """
    from sklearn.preprocessing import StandardScaler  # takes a second, which most runs save

    scaler = StandardScaler().fit(train_features)
    features = scaler.transform(train_features)
    with threadpool_limits(1 if features.size * num_classes < SMALL else None):
        cost, num_held_out = _best_cost(features, train_labels, seed=seed)
        model = _fitted(features, train_labels, cost)
    with np.errstate(divide="ignore"):  # the log of a probability of 0
        log_probs = np.maximum(model.predict_log_proba(scaler.transform(test_features)), LOWEST)
    scores = np.full((len(test_features), num_classes), 2 * LOWEST)
    scores[:, model.classes_] = log_probs
    return scores, cost, num_held_out


def _best_cost(features: Values, labels: Labels, *, seed: int) -> tuple[float, int]:
    """Return the cost that is best for the held-out images, and their number."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fitting, held_out = held_out_split(labels, seed=seed)
    if not len(held_out):
        logger.info(
            "the logistic regression has cost %g, which was not chosen: of %d images of %d classes "
            "none can be held out",
            DEFAULT_COST,
            len(labels),
            len(np.unique(labels)),
        )
        return DEFAULT_COST, 0
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    accuracy = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said of the fit that counts
        for cost in COSTS:
            model.set_params(C=cost).fit(features[fitting], labels[fitting])
            accuracy[cost] = model.score(features[held_out], labels[held_out])
    return max(COSTS, key=lambda cost: accuracy[cost]), len(held_out)


def _fitted(features: Values, labels: Labels, cost: float) -> "LogisticRegression":
    """Return the logistic regression that is fitted to images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, in a line
        model = LogisticRegression(C=cost, max_iter=MAX_ITERATIONS).fit(features, labels)
    if model.n_iter_.max() >= MAX_ITERATIONS:
        logger.warning(
            "the logistic regression of cost %g had not reached its optimum after %s iterations: "
            "features nearly all alike? `--solver sgd` is another classifier.",
            cost,
            f"{MAX_ITERATIONS:,}",
        )
    return model


def held_out_split(labels: Labels, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices to fit on, and the held-out fifth, drawn evenly from all classes.

    The only image of a class is fitted to: held out, it would be wrong at any cost.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    several = by_class[np.bincount(labels)[labels[by_class]] > 1]
    every = round(1 / HELD_OUT)
    held_out = np.zeros(len(labels), bool)
    held_out[several[every // 2 :: every]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def sgd_scores(
    train_features: Values,
    train_labels: Labels,
    test_features: Values,
    *,
    num_classes: int,
    config: SgdConfig,
    device: torch.device,
    seed: int,
) -> NDArray[np.float32]:
    """Return logits (M, K) of a linear layer trained with SGD; Args: see `logistic_scores`.

    Raises:
        ConfigError: The layer diverged.
    """
    generator = torch.Generator().manual_seed(seed)
    features = torch.from_numpy(train_features).to(device)  # (N, C)
    labels = torch.from_numpy(train_labels).to(device)
    layer = _linear_layer(features.shape[1], num_classes, generator).to(device)
    optimizer = torch.optim.SGD(
        layer.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    num_steps = config.epochs * -(-len(labels) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(config.epochs):
        order = torch.randperm(len(labels), generator=generator).to(device)
        for batch in torch.split(order, config.batch_size):
            loss = nn.functional.cross_entropy(layer(features[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        logits: Tensor = layer(torch.from_numpy(test_features).to(device))
    if not logits.isfinite().all():
        raise ConfigError(
            f"the linear classifier diverged with sgd.lr {config.lr} and sgd.weight_decay "
            f"{config.weight_decay}: give a lower learning rate."
        )
    return logits.cpu().numpy()


def _linear_layer(num_channels: int, num_classes: int, generator: torch.Generator) -> nn.Linear:
    """Return a layer with weights N(0, 0.01) and biases 0."""
    # On the meta device the constructor draws no random numbers.
    layer = nn.Linear(num_channels, num_classes, device="meta").to_empty(device="cpu")
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def neighbor_scores(
    train_features: Values,
    train_labels: Labels,
    test_features: Values,
    *,
    num_classes: int,
    config: NeighborConfig,
    chunk_size: int = 1024,
) -> NDArray[np.float32]:
    """Return the weighted votes (M, K) of the nearest training images; Args: see `logistic_scores`.

    Votes are relative to the nearest neighbour's, so that no temperature overflows.
    """
    labels = torch.from_numpy(train_labels)
    votes = []
    for nearest, weights in _neighbors(train_features, test_features, config, chunk_size):
        empty = torch.zeros(len(nearest), num_classes)
        votes.append(empty.scatter_add_(1, labels[nearest], weights))
    return torch.cat(votes).numpy()


def neighbor_fractions(
    train_features: Values,
    present: NDArray[np.bool_],
    test_features: Values,
    *,
    config: NeighborConfig,
    chunk_size: int = 1024,
) -> NDArray[np.float32]:
    """Return the fraction (M, K) of the nearest training images' weight that shows each class.

    Images may show several classes.

    Args:
        train_features: (N, C)
        present: (N, K) whether a training image shows a class.
        test_features: (M, C)
    """
    shown = torch.from_numpy(present).float()  # (N, K)
    fractions = []
    for nearest, weights in _neighbors(train_features, test_features, config, chunk_size):
        weights = weights / weights.sum(1, keepdim=True)
        fractions.append((weights[:, None] @ shown[nearest]).squeeze(1))
    return torch.cat(fractions).numpy()


def _neighbors(
    train_features: Values, test_features: Values, config: NeighborConfig, chunk_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each chunk of test images the nearest training images (m, k) and weights (m, k)."""
    train = nn.functional.normalize(torch.from_numpy(train_features), dim=1)  # (N, C)
    most = min(config.num_neighbors, len(train))
    for chunk in torch.split(torch.from_numpy(test_features), chunk_size):
        cosines = nn.functional.normalize(chunk, dim=1) @ train.T  # (m, N)
        nearest = cosines.topk(most, dim=1)  # (m, k)
        weights = torch.exp((nearest.values - nearest.values[:, :1]) / config.temperature)
        yield nearest.indices, weights
