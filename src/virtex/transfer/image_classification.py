"""Classification of images of one class each, trained on augmented images.

ImageNet-1k linear classification (a linear layer on the frozen, pooled backbone) and iNaturalist
2018 (the whole network fine-tuned) as in Desai and Johnson, "VirTex", CVPR 2021, sections 4.2 and
4.4; the recipes hold their values. The layer is initialised with N(0, 0.01) and bias 0, as in the
released code. `linear` is the cheap variant: it computes features once.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from virtex import distributed
from virtex.config import parse, with_recipes
from virtex.data.example import Source
from virtex.data.source import SourceConfig
from virtex.data.transforms import ImageConfig, normalize
from virtex.errors import DataError
from virtex.models.backbone import Backbone
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.classification import Classification, LabelClassificationConfig
from virtex.transfer.command import LabelledConfig, open_data, run_protocol
from virtex.transfer.features import Extraction, backbone_digest, data_identity
from virtex.transfer.linear import (
    NEIGHBORS,
    check_single_label_data,
    labelled_splits,
    neighbor_accuracies,
)
from virtex.transfer.metrics.classification import top_accuracies, true_ranks
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.solvers.probes import NeighborConfig
from virtex.transfer.training import (
    Training,
    TrainingOptions,
    predict_all,
    run_training,
    trainable_copy,
)

INITIAL_DEVIATION = 0.01
WORDNET_ID = re.compile(r"n\d{8}")
NUM_IMAGES = {"imagenet": (1_281_167, 50_000), "inaturalist": (437_513, 24_426)}
"""Numbers of training and test images, by which the paper's data are recognised."""


@dataclass(frozen=True, kw_only=True)
class ImageClassification(Protocol):
    """A linear layer on the pooled backbone, trained alone or with the whole network."""

    headline: ClassVar[str] = "top1"
    frozen: bool
    """Whether the layer alone is trained."""
    image: ImageConfig
    training: Training
    neighbors: NeighborConfig | None = None
    """Nearest neighbours on the frozen features, to be scored as well."""

    def settings(self) -> dict[str, Any]:
        training = self.training.settings()
        if self.frozen:
            del training["backbone_lr"]
        return {
            "image_size": self.image.size,
            "frozen": self.frozen,
            "image": asdict(self.image),
            **training,
            # so that results with and without, or of another vote, do not replace each other
            **({} if self.neighbors is None else {"neighbors": asdict(self.neighbors)}),
        }

    @property
    def device(self) -> torch.device:
        return self.training.device

    def as_in_paper(self, train: Source, test: Source) -> bool:
        if NUM_IMAGES.get(self.name) != (len(train), len(test)):
            return False
        recipe = with_recipes(["--config", self.name, "--init", "random", "--out", "."], "transfer")
        paper = protocol(parse(ImageClassificationConfig, recipe, prog="virtex transfer"))
        return replace(self, neighbors=None).settings() == paper.settings()

    def check(self, train: Source, test: Source) -> None:
        check_single_label_data(train, test, self.neighbors)

    def run(
        self,
        backbone: Backbone,
        *,
        train: Source,
        test: Source,
        initialisation: Mapping[str, Any],
    ) -> Result:
        result = super().run(backbone, train=train, test=test, initialisation=initialisation)
        earlier = self.training.folder.parent / result.file_name
        if self.neighbors is not None or not earlier.exists():
            return result
        with suppress(DataError):  # a damaged result is replaced
            return _with_earlier_neighbors(result, Result.read(earlier))
        return result

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        neighbors = self._neighbors(backbone, train, test)
        task = self._trained(backbone, train, test)
        predictions = predict_all(task, test, _Ranks(task), self.training)
        if not distributed.is_main():
            return {}
        ranks = np.fromiter(predictions.values(), np.int64)
        top = top_accuracies(ranks, num_classes=len(train.categories))
        return {
            **{name: 100 * value for name, value in top.items()},
            **neighbors,
            "num_train": float(len(train)),
            "num_test": float(len(ranks)),
        }

    def _trained(self, backbone: Backbone, train: Source, test: Source) -> Classification:
        backbone.grid_size(self.image.size)  # an error now rather than in training
        training = self.training.for_images(len(train), seed=self.seed)
        torch.manual_seed(self.seed)
        task = LabelClassificationConfig().build(
            trainable_copy(backbone, frozen=self.frozen),
            TaskData(self.image, None, train.categories, len(train)),
        )
        nn.init.normal_(task.output.weight, std=INITIAL_DEVIATION)
        nn.init.zeros_(task.output.bias)
        own = ["classification", self.frozen, asdict(self.image)]
        key = [*own, backbone_digest(backbone), data_identity(train)]
        run_training(task, training, train=train, test=test, key=key)
        return task

    def _neighbors(self, backbone: Backbone, train: Source, test: Source) -> dict[str, float]:
        if self.neighbors is None:
            return {}
        extraction = Extraction(
            image_size=self.image.size,
            batch_size=self.training.run.batch_size,
            num_workers=self.training.loader.num_workers,
            device=self.device,
            bad_image_limit=self.training.loader.bad_image_limit,
            cache=self.training.folder.parent / "features",
        )
        splits = labelled_splits(backbone, train, test, extraction)
        if not distributed.is_main():
            return {}
        num_classes = len(train.categories)
        return neighbor_accuracies(*splits, num_classes=num_classes, config=self.neighbors)


def _with_earlier_neighbors(result: Result, earlier: Result) -> Result:
    """Return a result with the scores of nearest neighbours of the one that it will replace.

    The settings of earlier versions did not state whether they had been requested.
    """
    kept = {name: value for name, value in earlier.numbers.items() if name.startswith(NEIGHBORS)}
    return replace(result, numbers={**result.numbers, **kept})


@dataclass(frozen=True)
class _Ranks:
    """Ranks of the true classes of a batch among the logits."""

    task: Classification

    def __call__(self, batch: Batch) -> Sequence[int]:
        logits = self.task.logits(normalize(batch["image"])).float()
        ranks = true_ranks(batch["targets"][:, 0].cpu().numpy(), logits.cpu().numpy())
        return [int(rank) for rank in ranks]


@dataclass(frozen=True, kw_only=True)
class ImageClassificationConfig(TrainingOptions, LabelledConfig):
    """Options of `virtex transfer imagenet`, `inaturalist` and `finetune`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig(source="classes"))
    frozen: bool = True
    """Train a linear layer on the frozen backbone; false: fine-tune the whole network."""
    image: ImageConfig = field(default_factory=ImageConfig)
    epochs: int | None = None
    """Passes over the training images; null: run.num_steps applies."""
    drop_epochs: tuple[int, ...] = ()
    """Epochs after which the learning rate is multiplied by optim.gamma; empty: optim.schedule."""
    knn: bool = False
    """Score nearest neighbours on the features of the given backbone as well."""
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)

    @property
    def side_of_images(self) -> int:
        return self.image.size

    def problems(self) -> list[str]:
        return [*super().problems(), *self.neighbors.problems()]


def protocol(config: ImageClassificationConfig) -> ImageClassification:
    """Return the protocol that a command describes.

    Raises:
        ConfigError: Training options that contradict each other.
    """
    training = config.training(config.folder, epochs=config.epochs, drop_epochs=config.drop_epochs)
    return ImageClassification(
        name=protocol_name(config),
        frozen=config.frozen,
        image=config.image,
        training=training,
        neighbors=config.neighbors if config.knn else None,
    )


def protocol_name(config: ImageClassificationConfig) -> str:
    """Return the protocol's name, which is the paper's only on the paper's data."""
    if not config.frozen:
        return "inaturalist" if config.data.source == "inaturalist" else "finetune"
    return "imagenet" if _is_imagenet(config.data) else "linear-augmented"


def _is_imagenet(data: SourceConfig) -> bool:
    """Return whether there are 1,000 class folders named by WordNet's ids."""
    if data.source != "classes" or data.root is None:
        return False
    folders = Path(data.root / (data.train_split or "train")).glob("[!.]*")
    names = [folder.name for folder in folders]
    return len(names) == 1000 and all(WORDNET_ID.fullmatch(name) for name in names)


def open_images(config: ImageClassificationConfig) -> dict[str, Source]:
    """Open and check the images of `run`, by their roles."""
    return open_data(protocol(config), config, config.data)


def run(config: ImageClassificationConfig) -> list[Result]:
    """Train a classifier on a backbone, test it, and write the results."""
    return run_protocol(protocol(config), config, config.data)
