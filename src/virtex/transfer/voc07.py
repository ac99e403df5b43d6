"""VOC07 linear: one SVM for each class on frozen, pooled features; mean average precision.

The protocol of Desai and Johnson, "VirTex", CVPR 2021, section 4.1, after Goyal et al., "Scaling
and Benchmarking Self-Supervised Visual Representation Learning", ICCV 2019. As in the released
code, a class marked difficult in an image counts as absent while that class's SVM is trained, and
the image is left out of the class's AP.

Departure: all SVMs are solved together (solvers/svm.py) instead of one by one with LIBLINEAR. The
optimum is the same; it is reached at every cost, faster, and without random numbers.

knn_mAP is reported as well: the 20 most similar training images vote, with nothing to tune.
"""

import logging
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from virtex import distributed
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, resolved
from virtex.data.sources.voc_splits import DEFAULT_YEAR, parse_splits, voc_folder
from virtex.errors import DataError, listing, raise_all
from virtex.models.backbone import Backbone
from virtex.transfer.command import TransferConfig, extraction, open_data, run_protocol
from virtex.transfer.features import CPU, Extraction, Features, extract_splits
from virtex.transfer.metrics.classification import average_precisions
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.solvers.probes import NeighborConfig, neighbor_fractions
from virtex.transfer.solvers.svm import COSTS, NUM_FOLDS, POSITIVE_WEIGHT, svm_scores

log = logging.getLogger("virtex")
Targets = NDArray[np.int8]
"""Labels (N, K): 1 present, -1 absent, 0 unknown."""

NUM_IMAGES = (5011, 4952)
"""Numbers of images of VOC2007's trainval and test, by which the paper's data are recognised."""


@dataclass(frozen=True, kw_only=True)
class MultiLabelSvm(Protocol):
    """Linear SVMs on frozen features of images that show several classes at once."""

    headline: ClassVar[str] = "mAP"
    name: str = "voc07"
    extraction: Extraction = field(default_factory=Extraction)
    leave_out_rare: bool = False
    """Whether classes that too few images show are left out, instead of refusing the data."""
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)
    """The vote of knn_mAP; all training images vote where there are fewer."""

    def settings(self) -> dict[str, Any]:
        svm = {
            "costs": list(COSTS), "num_folds": NUM_FOLDS, "positive_weight": POSITIVE_WEIGHT,
            "leave_out_rare": self.leave_out_rare,
        }  # fmt: skip
        return {**self.extraction.settings(), **svm, **asdict(self.neighbors)}

    @property
    def device(self) -> torch.device:
        return self.extraction.device

    def as_in_paper(self, train: Source, test: Source) -> bool:
        is_voc = self.name == "voc07" and (len(train), len(test)) == NUM_IMAGES
        own = replace(self, neighbors=NeighborConfig())  # which do not change mAP
        return is_voc and own.settings() == MultiLabelSvm().settings()

    def check(self, train: Source, test: Source) -> None:
        check_same_classes(train, test)
        self._scored_classes(_known_targets(train), _known_targets(test), train.categories)

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        train_features, test_features = extract_splits(backbone, train, test, self.extraction)
        if not distributed.is_main():
            return {}
        train_targets = multilabel_targets(train_features, len(train.categories))
        test_targets = multilabel_targets(test_features, len(test.categories))
        scored = self._scored_classes(train_targets, test_targets, train.categories)
        left_out = len(train.categories) - len(scored)
        if left_out:
            log.warning("%d of %d classes are left out", left_out, len(train.categories))
        train_targets, test_targets = train_targets[:, scored], test_targets[:, scored]
        values = 100 * voc07_average_precisions(
            train_features.values,
            train_targets,
            test_features.values,
            test_targets,
            device=self.device,
        )
        votes = neighbor_fractions(
            train_features.values, train_targets > 0, test_features.values, config=self.neighbors
        )
        names = [train.categories[index] for index in scored]
        return {
            "mAP": float(values.mean()),
            "knn_mAP": float(100 * average_precisions(test_targets, votes).mean()),
            **{f"AP/{name}": float(value) for name, value in zip(names, values, strict=True)},
            "num_classes": float(len(names)),
            "num_train": float(len(train_targets)),
            "num_test": float(len(test_targets)),
        }

    def _scored_classes(
        self, train: Targets, test: Targets, categories: tuple[str, ...]
    ) -> NDArray[np.intp]:
        """Return the indices of the classes that have enough images to cross-validate and test."""
        lacks = {
            f"fewer than {NUM_FOLDS} training images show": (train > 0).sum(0) < NUM_FOLDS,
            f"fewer than {NUM_FOLDS} training images lack": (train <= 0).sum(0) < NUM_FOLDS,
            "no test image shows": ~(test > 0).any(0),
        }
        rare = np.any(list(lacks.values()), axis=0)  # (K,)
        if rare.all() or (rare.any() and not self.leave_out_rare):
            problems = [
                f"{lack} {listing(categories[index] for index in np.flatnonzero(flags))}"
                for lack, flags in lacks.items()
                if flags.any()
            ]
            remedy = "" if rare.all() else ", or leave these classes out with --leave_out_rare true"
            raise_all(
                DataError,
                f"cannot train and test an SVM for {rare.sum()} of {len(categories)} classes on "
                f"{len(train)} training and {len(test)} test images (give more{remedy})",
                problems,
            )
        return np.flatnonzero(~rare)


def _known_targets(source: Source) -> Targets:
    """Return targets with 1 for present and -1 for any other class, without reading the images."""
    targets = np.full((len(source), len(source.categories)), -1, np.int8)
    for index in range(len(source)):
        targets[index, list(source.labels(index))] = 1
    return targets


def multilabel_targets(features: Features, num_classes: int) -> Targets:
    """Return the targets of the rows of the features."""
    targets = np.full((len(features.indices), num_classes), -1, np.int8)
    targets[features.select(features.ignored_labels)] = 0
    targets[features.select(features.labels)] = 1
    return targets


def voc07_average_precisions(
    train_features: NDArray[np.float32],
    train_targets: Targets,
    test_features: NDArray[np.float32],
    test_targets: Targets,
    *,
    device: torch.device = CPU,
) -> NDArray[np.float64]:
    """Return the test AP of each class (K,), from 0 to 1.

    Args:
        train_features: (N, C), not normalised; test_features (M, C) likewise.
        train_targets: (N, K) 1 present, -1 absent, 0 unknown; test_targets (M, K) likewise.
        device: Where to solve the SVMs.
    """
    scores = svm_scores(
        l2_normalized(train_features),
        np.where(train_targets > 0, 1, -1).astype(np.int8),
        l2_normalized(test_features),
        device=device,
    )
    return average_precisions(test_targets, scores)


def l2_normalized(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features (N, C) with rows of norm 1; rows of zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)  # (N, 1)
    return (features / np.where(lengths > 0, lengths, 1)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Voc07Config(TransferConfig):
    """Options of `virtex transfer voc07`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig("voc"))
    """Images with labels; VOC's splits are trainval and test unless named."""
    leave_out_rare: bool = False
    """Leave out classes that fewer than three training images or no test image show."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.num_seeds > 1 and self.init != "random" and self.labels == 1 and not self.shots:
            problems.append(
                f"num_seeds {self.num_seeds}, and with all labels the SVMs of given weights do not "
                "depend on the seed: leave num_seeds out, or draw few labels with labels or shots"
            )
        return problems


def protocol_name(data: SourceConfig) -> str:
    """Return the protocol's name, which is voc07 on VOC2007 alone."""
    return "voc07" if _years(data) == {DEFAULT_YEAR} else "multilabel-svm"


def _years(data: SourceConfig) -> set[str]:
    """Return the years of VOC's images, as named by the splits or else by the folders.

    There are none for other sources.
    """
    if data.source != "voc" or data.root is None:
        return set()
    data = with_voc_splits(data)
    splits = ((data.root, data.train_split), (data.val_root or data.root, data.val_split))
    return {
        part.year or _year_of(root)
        for root, split in splits
        if root is not None and split is not None
        for part in parse_splits(split)
    }


def _year_of(root: Path) -> str:
    """Return the year of the images of a split without a year."""
    found = re.fullmatch(r"VOC(\d{4})", voc_folder(root, None).name, re.IGNORECASE)
    return found[1] if found else DEFAULT_YEAR


def with_voc_splits(data: SourceConfig) -> SourceConfig:
    """Return options with this protocol's splits of VOC where none are named."""
    data = resolved(data, Needs(labels=True))
    if data.source != "voc":
        return data
    return replace(
        data,
        train_split=data.train_split or "trainval",
        val_split=data.val_split or "test",
    )


def protocol(config: Voc07Config) -> MultiLabelSvm:
    """Return the protocol that a command describes.

    Raises:
        ConfigError: Options that cannot work.
    """
    svm = svm_on(config.data, extraction(config), leave_out_rare=config.leave_out_rare)
    return replace(svm, seed=config.seed)


def svm_on(data: SourceConfig, extraction: Extraction, *, leave_out_rare: bool) -> MultiLabelSvm:
    """Return the protocol under the name that it has on these data."""
    return MultiLabelSvm(
        name=protocol_name(data), extraction=extraction, leave_out_rare=leave_out_rare
    )


def open_images(config: Voc07Config) -> dict[str, Source]:
    """Open and check the images of `run`, by their roles."""
    return open_data(protocol(config), config, with_voc_splits(config.data))


def run(config: Voc07Config) -> list[Result]:
    """Score a backbone on VOC2007 classification (or other data of its kind); write the results."""
    return run_protocol(protocol(config), config, with_voc_splits(config.data))
