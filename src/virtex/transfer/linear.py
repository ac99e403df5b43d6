"""Linear probe and nearest neighbours on frozen, pooled features of images of one class each.

The solvers and their sources stand in probes.py. `sgd` is the ImageNet-1k linear layer of Desai and
Johnson, "VirTex", CVPR 2021, section 4.2, except that the features are computed once, from centre
crops, instead of anew from random crops.
"""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

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
    run_protocol,
)
from virtex.transfer.features import Extraction, Features, extract_features
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
"""Training images from which on the logistic solver takes hours; it sees all of them each step."""
logger = logging.getLogger("virtex")


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Protocol):
    """A linear classifier, and nearest neighbours beside it, on frozen features."""

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
        check_same_classes(train, test)
        for source, name in ((train, "training"), (test, "test")):
            check_single_labels(source, name)
        check_labels(first_labels(train), self.neighbors)

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        if self.solver == "logistic":
            _warn_of_size(len(train))
        train_features = extract_features(backbone, train, self.extraction, name="training images")
        test_features = extract_features(backbone, test, self.extraction, name="test images")
        if not distributed.is_main():
            return {}
        train_labels = single_labels(train_features, train)
        test_labels = single_labels(test_features, test)
        check_labels(train_labels, self.neighbors)
        fitted = (train_features.values, train_labels, test_features.values)
        num_classes = len(train.categories)
        if self.solver == "sgd":
            scores: Scores = sgd_scores(
                *fitted,
                num_classes=num_classes,
                config=self.sgd,
                device=self.device,
                seed=self.seed,
            )
            cost = {}
        else:
            scores, best = logistic_scores(*fitted, num_classes=num_classes, seed=self.seed)
            cost = {"cost": best}
        votes = neighbor_scores(*fitted, num_classes=num_classes, config=self.neighbors)
        counts = {"num_train": float(len(train_labels)), "num_test": float(len(test_labels))}
        return {
            **accuracies(test_labels, scores),
            **{f"knn_{key}": value for key, value in accuracies(test_labels, votes).items()},
            **cost,
            **counts,
        }


def first_labels(source: Source) -> Labels:
    """(N,) the class of each image of a source."""
    return np.fromiter((source.labels(index)[0] for index in range(len(source))), np.int64)


def single_labels(features: Features, source: Source) -> Labels:
    """(N,) the one class of each row of the features; `check_single_labels` sees that it is one."""
    classes = (source.labels(index)[0] for index in features.indices.tolist())
    return np.fromiter(classes, np.int64)


def accuracies(labels: Labels, scores: NDArray[np.floating]) -> dict[str, float]:
    """top1, and top5 where there are more than five classes, in percent."""
    ranks = true_ranks(labels, scores)
    top = top_accuracies(ranks, num_classes=scores.shape[1])
    return {name: 100 * value for name, value in top.items()}


def _warn_of_size(num_images: int) -> None:
    """Say before the work starts that it is much, and what takes less."""
    if num_images > MOST_FOR_LOGISTIC and distributed.is_main():
        logger.warning(
            "solver logistic goes over all %s training images in each step, for seven costs and "
            "once more: hours to days. `--solver sgd` takes a fraction of that; features that are "
            "there already are taken up.",
            f"{num_images:,}",
        )


def check_labels(labels: Labels, neighbors: NeighborConfig | None) -> None:
    """Refuse training images from which nothing can be learned or chosen.

    Raises:
        ConfigError: Fewer images than neighbours, or than a fifth of them can be held out.
        DataError: A single class.
    """
    if len(np.unique(labels)) < 2:
        raise DataError("all training images are of one class; a classifier needs at least two.")
    if neighbors and len(labels) < max(neighbors.num_neighbors, round(1 / HELD_OUT)):
        raise ConfigError(
            f"{neighbors.num_neighbors} neighbours were asked for, but there are only "
            f"{len(labels)} training images. Give more images, or lower neighbors.num_neighbors."
        )


@dataclass(frozen=True, kw_only=True)
class LinearConfig(TransferConfig):
    """Options of `virtex transfer linear`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig(source="classes"))
    solver: Literal["logistic", "sgd"] = "logistic"
    """logistic: the optimum, its cost chosen on held-out images; sgd: the paper's linear layer."""
    sgd: SgdConfig = field(default_factory=SgdConfig)
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)


def run(config: LinearConfig) -> list[Result]:
    """Score a backbone on images of one class each and write the results."""
    protocol = LinearProbe(
        extraction=extraction(config),
        solver=config.solver,
        sgd=config.sgd,
        neighbors=config.neighbors,
        seed=config.seed,
    )
    return run_protocol(protocol, config, config.data)
