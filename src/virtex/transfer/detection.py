"""Detection and instance segmentation: the whole network fine-tuned, then average precision.

COCO and LVIS with Mask R-CNN on a feature pyramid, PASCAL VOC 07+12 with Faster R-CNN C4, as in
Desai and Johnson, "VirTex", CVPR 2021, section 4.3; their numbers stand in the recipes. Where those
say nothing Detectron2's defaults hold, which the released code left as they were: 1,000 warm-up
steps, no weight decay on BatchNorm, statistics of BatchNorm taken anew over 200 batches before the
test.

Departures: losses, suppression and initial weights are torchvision's (smooth L1 with beta 1/9 where
Detectron2 has L1), and images of a batch are not grouped by their shape.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as run_lengths

from virtex import distributed
from virtex.data.checks import check_same_classes
from virtex.data.example import Example, Source, Subset
from virtex.data.loader import LoaderConfig
from virtex.data.masks import compressed_mask
from virtex.data.source import Needs, SourceConfig
from virtex.data.subsets import repeat_factors
from virtex.data.transforms import ImageConfig
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig
from virtex.errors import ConfigError, DataError, raise_all
from virtex.models.backbone import Backbone
from virtex.models.batch_norm import estimate_statistics
from virtex.models.region_heads import Detections
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.detection import Detection, DetectionConfig
from virtex.transfer.command import CommandConfig, run_protocol
from virtex.transfer.features import backbone_digest, data_identity
from virtex.transfer.metrics.detection import coco_scores, lvis_scores
from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth, RunLengths, encode_masks
from virtex.transfer.metrics.voc_detection import voc_scores
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.training import (
    Training,
    batches_of,
    check_training,
    forward,
    predict_all,
    run_training,
    trainable_copy,
)

Metric = Literal["coco", "lvis", "voc"]
TEST_ONLY = ("score_threshold", "num_detections", "num_test_candidates", "num_test_proposals")
"""Options of regions that no weight depends on."""


@dataclass(frozen=True, kw_only=True)
class DetectionProtocol(Protocol):
    """Boxes of all objects."""

    headline: ClassVar[str] = "box_AP"
    metric: Metric
    """coco: COCO's; lvis: federated, by frequency; voc: COCO's and VOC 2007's own beside it."""
    task: DetectionConfig
    training: Training
    frozen_norm: bool = False
    """Keep the backbone's BatchNorm as it is."""
    repeat_threshold: float = 0.0
    """Repeat images of classes that fewer than this share of the images show; 0: none."""
    num_statistics_batches: int = 200
    """Training batches from which BatchNorm's statistics are taken anew before the test."""
    needs: ClassVar[Needs] = Needs(objects=True)

    def settings(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "image_size": self.task.test_size,
            **asdict(self.task),
            **self.training.settings(),
            "frozen_norm": self.frozen_norm,
            "repeat_threshold": self.repeat_threshold,
            "num_statistics_batches": self.num_statistics_batches,
        }

    @property
    def device(self) -> torch.device:
        return self.training.device

    def check(self, train: Source, test: Source) -> None:
        check_same_classes(train, test)
        for source, name in ((train, "training"), (test, "test")):
            check_objects(source, name)
        if self.metric == "lvis" and not test.frequencies:
            raise ConfigError(
                "metric lvis needs classes marked rare, common or frequent, which the data do not "
                "tell; take --data.source lvis, or --metric coco."
            )

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        train = with_objects(train)
        task = self._trained(backbone, train, test)
        found = predict_all(
            task,
            test,
            _Finder(task),
            self.training,
            encode=task.encode_image,
            images_at_once=1,  # padding to other images' size would change what is found
        )
        if not distributed.is_main():
            return {}
        truth = [
            ground_truth_of(test[index], size, with_masks=self.task.masks)
            for index, (size, _) in found.items()
        ]
        scores = self._scores(truth, [objects for _, objects in found.values()], test)
        counts = {"num_train": float(len(train)), "num_test": float(len(found))}
        return {**{name: 100 * score for name, score in scores.items()}, **counts}

    def _trained(self, backbone: Backbone, train: Source, test: Source) -> Detection:
        training = self.training.for_images(len(train), seed=self.seed)
        torch.manual_seed(self.seed)
        task = self.task.build(
            trainable_copy(backbone, frozen_norm=self.frozen_norm),
            TaskData(ImageConfig(), None, train.categories, len(train)),
        )
        repeats = None
        if self.repeat_threshold:
            repeats = repeat_factors(train, self.repeat_threshold)
        own = [training_options(self.task), self.frozen_norm, self.repeat_threshold]
        key = [*own, backbone_digest(backbone), data_identity(train)]
        run_training(task, training, train=train, test=test, key=key, repeats=repeats)
        if self.num_statistics_batches:
            with closing(batches_of(train, task, training, repeats=repeats)) as batches:
                estimate_statistics(
                    task,
                    batches,
                    partial(forward, task, training),
                    num_batches=self.num_statistics_batches,
                    seed=self.seed,
                )
        return task

    def _scores(
        self, truth: Sequence[GroundTruth], found: Sequence[DetectedObjects], test: Source
    ) -> dict[str, float]:
        num_classes, limit = len(test.categories), self.task.regions.num_detections
        if self.metric == "lvis":
            return lvis_scores(truth, found, frequencies=test.frequencies, max_detections=limit)
        scores = coco_scores(truth, found, num_classes=num_classes, max_detections=limit)
        if self.metric == "voc":
            scores |= voc_scores(truth, found, num_classes=num_classes)
        return scores


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol(DetectionProtocol):
    """Boxes and masks of all objects."""

    headline: ClassVar[str] = "mask_AP"
    needs: ClassVar[Needs] = Needs(objects=True, masks=True)


@dataclass(frozen=True)
class _Finder:
    """The objects of each image of a batch, and the image's height and width."""

    task: Detection

    def __call__(self, batch: Batch) -> list[tuple[tuple[int, int], DetectedObjects]]:
        sizes = [(height, width) for height, width in batch["image_sizes"].tolist()]
        return [
            (size, detected_objects(found))
            for size, found in zip(sizes, self.task.predict(batch), strict=True)
        ]


def training_options(task: DetectionConfig) -> dict[str, Any]:
    """The options that trained weights depend on, as plain values."""
    options = asdict(task)
    del options["test_size"]
    for name in TEST_ONLY:
        del options["regions"][name]
    return options


def check_objects(source: Source, name: str) -> None:
    """See that there is something to find, before any work is done.

    Raises:
        DataError: No image has an object that is no crowd and not marked difficult.
    """
    for index in range(len(source)):
        if source.labels(index):
            example = source[index]
            none = (False,) * len(example.box_labels)
            marks = zip(example.crowd or none, example.difficult or none, strict=True)
            if not all(crowd or difficult for crowd, difficult in marks):
                return
    raise DataError(
        f"none of the {len(source):,} {name} images has an object to find: there are none, or only "
        "crowds and difficult ones. Give annotations with objects."
    )


def with_objects(source: Source) -> Source:
    """The images that show something; the others would teach nothing but the background."""
    shown = [index for index in range(len(source)) if source.labels(index)]
    return source if len(shown) == len(source) else Subset(source, shown)


def detected_objects(found: Detections) -> DetectedObjects:
    """A detector's answer about an image, with masks as run lengths."""
    return DetectedObjects(
        boxes=found.boxes.float().cpu().numpy(),
        labels=found.labels.cpu().numpy() - 1,
        scores=found.scores.float().cpu().numpy(),
        masks=None if found.masks is None else encode_masks(found.masks.cpu().numpy()),
    )


def ground_truth_of(example: Example, size: tuple[int, int], *, with_masks: bool) -> GroundTruth:
    """What is to be found in an image of a height and width."""
    boxes = np.zeros((0, 4), np.float32) if example.boxes is None else example.boxes
    none = (False,) * len(boxes)
    masks = [compressed_mask(mask, *size) for mask in example.masks] if with_masks else None
    return GroundTruth(
        size=size,
        boxes=boxes,
        labels=np.asarray(example.box_labels, np.int64),
        areas=_areas(example, boxes, masks),
        crowd=np.asarray(example.crowd or none, np.bool_),
        difficult=np.asarray(example.difficult or none, np.bool_),
        masks=masks,
        absent_labels=example.absent_labels,
        incomplete_labels=example.incomplete_labels,
    )


def _areas(
    example: Example, boxes: NDArray[np.float32], masks: Sequence[RunLengths] | None
) -> NDArray[np.floating]:
    """(M,) as the annotations say; else the masks', else the boxes'."""
    if example.areas is not None:
        return example.areas
    if masks:
        return np.asarray([run_lengths.area(mask) for mask in masks], np.float64)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


@dataclass(frozen=True, kw_only=True)
class DetectionProtocolConfig(CommandConfig):
    """Options of `virtex transfer coco-segmentation`, `lvis-segmentation` and `voc-detection`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig(source="coco"))
    metric: Metric = "coco"
    """coco: AP over IoU 0.5 to 0.95, at 0.5, at 0.75, by size; lvis: federated, by frequency;
    voc: COCO's AP, and voc07_AP by VOC 2007's own 11-point areas."""
    task: DetectionConfig = field(default_factory=DetectionConfig)
    frozen_norm: bool = False
    """Keep statistics, weights and biases of the backbone's BatchNorm as they are (FrozenBN)."""
    repeat_threshold: float = 0.0
    """Repeat images of classes that fewer than this share of the images show (LVIS: 0.001)."""
    num_statistics_batches: int = 200
    """Training batches that BatchNorm's statistics are taken from anew before the test; 0: none."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)


def protocol(config: DetectionProtocolConfig) -> DetectionProtocol:
    """The protocol that a command describes."""
    training = Training(
        folder=config.folder / "training",
        optim=config.optim,
        run=config.run,
        loader=config.loader,
    )
    check_training(training)
    _check_options(config)
    kind = SegmentationProtocol if config.task.masks else DetectionProtocol
    return kind(
        name=protocol_name(config),
        metric=config.metric,
        task=config.task,
        training=training,
        frozen_norm=config.frozen_norm,
        repeat_threshold=config.repeat_threshold,
        num_statistics_batches=config.num_statistics_batches,
    )


def _check_options(config: DetectionProtocolConfig) -> None:
    problems = []
    if config.num_statistics_batches < 0:
        problems.append(f"num_statistics_batches {config.num_statistics_batches} is negative")
    if not 0 <= config.repeat_threshold <= 1:
        problems.append(f"repeat_threshold {config.repeat_threshold} must be from 0 to 1")
    raise_all(ConfigError, "the options cannot work", problems)


def protocol_name(config: DetectionProtocolConfig) -> str:
    """After the data, so that results on other data are not taken for a benchmark's."""
    return f"{config.data.source}-{'segmentation' if config.task.masks else 'detection'}"


def run(config: DetectionProtocolConfig) -> list[Result]:
    """Train a detector on a backbone, test it, and write the results."""
    return run_protocol(protocol(config), config, config.data)
