"""Linear probe and nearest neighbours on frozen, pooled features of images of one class each.

solvers/probes.py has the solvers and their sources. `sgd` is the ImageNet-1k linear layer of Desai
and Johnson, "VirTex", CVPR 2021, section 4.2, except that features are computed once, from centre
crops, instead of in each epoch from random crops.
"""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.source import SourceConfig
from virtex.errors import ConfigError, DataError
from virtex.models.backbone import Backbone
from virtex.transfer.command import (
    TransferConfig,
    check_single_labels,
    extraction,
    open_data,
    run_protocol,
)
from virtex.transfer.features import Extraction, Features, extract_splits
from virtex.transfer.metrics.classification import top_accuracies, true_ranks
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.solvers.probes import (
    COSTS,
    HELD_OUT,
    Labels,
    NeighborConfig,
    Scores,
    SgdConfig,
    logistic_scores,
    neighbor_scores,
    sgd_scores,
)

MOST_FOR_LOGISTIC = 100_000
"""Number of training images above which the logistic solver takes hours."""
LONG_FIT = (
    "solver logistic goes over all %s training images in each step, for seven costs and once more: "
    "hours to days. `--solver sgd` takes a fraction of that, and reuses the cached features."
)
NEIGHBORS = "knn_"
"""Start of the names of numbers of nearest neighbours."""
logger = logging.getLogger("virtex")


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Protocol):
    """A linear classifier and nearest neighbours on frozen features."""

    headline: ClassVar[str] = "top1"
    name: str = "linear"
    extraction: Extraction = field(default_factory=Extraction)
    solver: Literal["logistic", "sgd"] = "logistic"
    sgd: SgdConfig = field(default_factory=SgdConfig)
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)

    def settings(self) -> dict[str, Any]:
        own = asdict(self.sgd) if self.solver == "sgd" else {"costs": COSTS, "held_out": HELD_OUT}
        fit = {"solver": self.solver, **own}
        return {**self.extraction.settings(), **fit, **asdict(self.neighbors)}

    @property
    def device(self) -> torch.device:
        return self.extraction.device

    def check(self, train: Source, test: Source) -> None:
        check_single_label_data(train, test, self.neighbors)

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        if self.solver == "logistic" and len(train) > MOST_FOR_LOGISTIC and distributed.is_main():
            logger.warning(LONG_FIT, f"{len(train):,}")
        known, unknown = labelled_splits(backbone, train, test, self.extraction)
        if not distributed.is_main():
            return {}
        check_labels(known.labels, self.neighbors)
        num_classes = len(train.categories)
        scores, cost = self._scores(known, unknown, num_classes)
        return {
            **accuracies(unknown.labels, scores),
            **neighbor_accuracies(known, unknown, num_classes=num_classes, config=self.neighbors),
            **cost,
            "num_train": float(len(known.labels)),
            "num_test": float(len(unknown.labels)),
        }

    def _scores(
        self, known: "Labelled", unknown: "Labelled", num_classes: int
    ) -> tuple[Scores, dict[str, float]]:
        data = (*known, unknown.values)
        if self.solver == "logistic":
            scores, cost, num_held_out = logistic_scores(
                *data, num_classes=num_classes, seed=self.seed
            )
            return scores, {"cost": cost, "num_held_out": float(num_held_out)}
        scores = sgd_scores(
            *data, num_classes=num_classes, config=self.sgd, device=self.device, seed=self.seed
        )
        return scores, {}


class Labelled(NamedTuple):
    """Features of images of one class each."""

    values: NDArray[np.float32]
    """(N, C)"""
    labels: Labels
    """(N,)"""


def labelled_splits(
    backbone: Backbone, train: Source, test: Source, extraction: Extraction
) -> tuple[Labelled, Labelled]:
    """Return the features of training and test images on the main process, none on the others."""
    known, unknown = extract_splits(backbone, train, test, extraction)
    return (
        Labelled(known.values, single_labels(known, train)),
        Labelled(unknown.values, single_labels(unknown, test)),
    )


def single_labels(features: Features, source: Source) -> Labels:
    """Return the one class of each row of the features (N,)."""
    classes = (source.labels(index)[0] for index in features.indices.tolist())
    return np.fromiter(classes, np.int64)


def neighbor_accuracies(
    known: Labelled, unknown: Labelled, *, num_classes: int, config: NeighborConfig
) -> dict[str, float]:
    """Return the accuracies of nearest neighbours, with names that begin with NEIGHBORS."""
    votes = neighbor_scores(*known, unknown.values, num_classes=num_classes, config=config)
    scores = accuracies(unknown.labels, votes)
    return {f"{NEIGHBORS}{name}": value for name, value in scores.items()}


def accuracies(labels: Labels, scores: NDArray[np.floating]) -> dict[str, float]:
    """Return top1, and top5 of more than five classes, in percent."""
    ranks = true_ranks(labels, scores)
    top = top_accuracies(ranks, num_classes=scores.shape[1])
    return {name: 100 * value for name, value in top.items()}


def check_single_label_data(train: Source, test: Source, neighbors: NeighborConfig | None) -> None:
    """Check that images have one class each, and that a classifier can be fitted to them.

    Raises:
        ConfigError: Too few training images.
        DataError: Other classes in the test, images with no class or several, or a single class.
    """
    check_same_classes(train, test)
    for source, name in ((train, "training"), (test, "test")):
        check_single_labels(source, name)
    labels = np.fromiter((train.labels(index)[0] for index in range(len(train))), np.int64)
    check_labels(labels, neighbors)


def check_labels(labels: Labels, neighbors: NeighborConfig | None) -> None:
    """Check that a classifier can be fitted to training images.

    Raises:
        ConfigError: Too few images to hold out a fifth.
        DataError: A single class.
    """
    if len(np.unique(labels)) < 2:
        raise DataError("all training images are of one class; a classifier needs at least two.")
    if neighbors and len(labels) < round(1 / HELD_OUT):
        raise ConfigError(
            f"there are only {len(labels)} training images, and {round(1 / HELD_OUT)} are needed, "
            "of which a fifth is held out to choose the cost: give more images"
        )


@dataclass(frozen=True, kw_only=True)
class LinearConfig(TransferConfig):
    """Options of `virtex transfer linear`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig(source="classes"))
    solver: Literal["logistic", "sgd"] = "logistic"
    """logistic: regression, its cost chosen on held-out images; sgd: the paper's linear layer."""
    sgd: SgdConfig = field(default_factory=SgdConfig)
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)

    def problems(self) -> list[str]:
        return [*super().problems(), *self.sgd.problems(), *self.neighbors.problems()]


def protocol(config: LinearConfig) -> LinearProbe:
    """Return the protocol that a command describes.

    Raises:
        ConfigError: Options that cannot work.
    """
    return LinearProbe(
        extraction=extraction(config),
        solver=config.solver,
        sgd=config.sgd,
        neighbors=config.neighbors,
        seed=config.seed,
    )


def open_images(config: LinearConfig) -> dict[str, Source]:
    """Open and check the images of `run`, by their roles."""
    return open_data(protocol(config), config, config.data)


def run(config: LinearConfig) -> list[Result]:
    """Score a backbone on images of one class each, and write the results."""
    return run_protocol(protocol(config), config, config.data)
