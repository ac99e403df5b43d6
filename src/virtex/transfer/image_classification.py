"""Classification of images of one class each, trained on augmented images.

ImageNet-1k linear classification (a linear layer on the frozen, pooled backbone) and iNaturalist
2018 (the whole network fine-tuned) as in Desai and Johnson, "VirTex", CVPR 2021, sections 4.2 and
4.4; their numbers stand in the recipes. The layer starts at N(0, 0.01) with bias 0, as in the
released code. `linear` is the cheap relative: it computes features once.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from virtex import distributed
from virtex.config import parse, with_recipes
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.loader import LoaderConfig
from virtex.data.source import SourceConfig
from virtex.data.transforms import ImageConfig, normalize
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig
from virtex.models.backbone import Backbone
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.classification import Classification, LabelClassificationConfig
from virtex.transfer.command import LabelledConfig, check_single_labels, run_protocol
from virtex.transfer.features import (
    Extraction,
    backbone_digest,
    data_identity,
    extract_features,
)
from virtex.transfer.linear import accuracies, check_labels, first_labels, single_labels
from virtex.transfer.metrics.classification import true_ranks
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.solvers.probes import NeighborConfig, neighbor_scores
from virtex.transfer.training import (
    Training,
    check_training,
    predict_all,
    run_training,
    trainable_copy,
)

INITIAL_DEVIATION = 0.01
WORDNET_ID = re.compile(r"n\d{8}")
NUM_IMAGES = {"imagenet": (1_281_167, 50_000), "inaturalist": (437_513, 24_426)}
"""Images for training and test, by which the paper's data are known."""


@dataclass(frozen=True, kw_only=True)
class ImageClassification(Protocol):
    """A linear layer on the pooled backbone, trained alone or with the whole network."""

    headline: ClassVar[str] = "top1"
    frozen: bool
    """Train the layer alone."""
    image: ImageConfig
    training: Training
    neighbors: NeighborConfig | None = None
    """Also score nearest neighbours on the frozen features."""

    def settings(self) -> dict[str, Any]:
        training = self.training.settings()
        if self.frozen:
            del training["backbone_lr"]
        return {
            "image_size": self.image.size,
            "frozen": self.frozen,
            "image": asdict(self.image),
            **training,
        }

    @property
    def device(self) -> torch.device:
        return self.training.device

    def as_in_paper(self, train: Source, test: Source) -> bool:
        if NUM_IMAGES.get(self.name) != (len(train), len(test)):
            return False
        recipe = with_recipes(["--config", self.name, "--init", "random", "--out", "."], "transfer")
        paper = protocol(parse(ImageClassificationConfig, recipe, prog="virtex transfer"))
        return self.settings() == paper.settings()

    def check(self, train: Source, test: Source) -> None:
        check_same_classes(train, test)
        for source, name in ((train, "training"), (test, "test")):
            check_single_labels(source, name)
        check_labels(first_labels(train), self.neighbors)

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        task = self._trained(backbone, train, test)
        ranks = predict_all(task, test, _Ranks(task), self.training)
        neighbors = self._neighbors(backbone, train, test)
        if not distributed.is_main():
            return {}
        found = np.fromiter(ranks.values(), np.int64)
        places = (1, 5) if len(train.categories) > 5 else (1,)
        return {
            **{f"top{k}": 100 * float((found <= k).mean()) for k in places},
            **neighbors,
            "num_train": float(len(train)),
            "num_test": float(len(found)),
        }

    def _trained(self, backbone: Backbone, train: Source, test: Source) -> Classification:
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
            cache=self.training.folder.parent / "features",
        )
        known, asked = (
            extract_features(backbone, source, extraction, name=f"{name} images")
            for source, name in ((train, "training"), (test, "test"))
        )
        if not distributed.is_main():
            return {}
        votes = neighbor_scores(
            known.values,
            single_labels(known, train),
            asked.values,
            num_classes=len(train.categories),
            config=self.neighbors,
        )
        scores = accuracies(single_labels(asked, test), votes)
        return {f"knn_{name}": value for name, value in scores.items()}


@dataclass(frozen=True)
class _Ranks:
    """The place of each image's true class among the logits."""

    task: Classification

    def __call__(self, batch: Batch) -> Sequence[int]:
        logits = self.task.logits(normalize(batch["image"])).float()
        return true_ranks(batch["targets"][:, 0].cpu().numpy(), logits.cpu().numpy()).tolist()


@dataclass(frozen=True, kw_only=True)
class ImageClassificationConfig(LabelledConfig):
    """Options of `virtex transfer imagenet`, `inaturalist` and `finetune`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig(source="classes"))
    frozen: bool = True
    """Train a linear layer on the frozen backbone; false trains the whole network."""
    image: ImageConfig = field(default_factory=ImageConfig)
    epochs: int | None = None
    """Passes over the training images; null: run.num_steps counts."""
    drop_epochs: tuple[int, ...] = ()
    """Epochs after which the learning rate is multiplied by optim.gamma; none: optim.schedule."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    knn: bool = False
    """Also score nearest neighbours on the features of the backbone as it came."""
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)


def protocol(config: ImageClassificationConfig) -> ImageClassification:
    """The protocol that a command describes."""
    training = Training(
        folder=config.folder / "training",
        optim=config.optim,
        run=config.run,
        loader=config.loader,
        epochs=config.epochs,
        drop_epochs=config.drop_epochs,
    )
    check_training(training)
    return ImageClassification(
        name=protocol_name(config),
        frozen=config.frozen,
        image=config.image,
        training=training,
        neighbors=config.neighbors if config.knn else None,
    )


def protocol_name(config: ImageClassificationConfig) -> str:
    """Results on other data than the paper's must not be taken for the paper's protocol."""
    if not config.frozen:
        return "inaturalist" if config.data.source == "inaturalist" else "finetune"
    return "imagenet" if _is_imagenet(config.data) else "linear-augmented"


def _is_imagenet(data: SourceConfig) -> bool:
    """Whether there are 1,000 class folders that bear WordNet's ids."""
    if data.source != "classes" or data.root is None:
        return False
    folders = Path(data.root / (data.train_split or "train")).glob("[!.]*")
    names = [folder.name for folder in folders]
    return len(names) == 1000 and all(WORDNET_ID.fullmatch(name) for name in names)


def run(config: ImageClassificationConfig) -> list[Result]:
    """Train a classifier on a backbone, test it, and write the results."""
    return run_protocol(protocol(config), config, config.data)
