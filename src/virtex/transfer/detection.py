"""Detection and instance segmentation: the whole network fine-tuned, scored by average precision.

COCO and LVIS with Mask R-CNN on a feature pyramid, PASCAL VOC 07+12 with Faster R-CNN C4, as in
Desai and Johnson, "VirTex", CVPR 2021, section 4.3; the recipes hold their values. Everything else
follows Detectron2's defaults, as in the released code: 1,000 warm-up steps, no weight decay on
BatchNorm, and BatchNorm statistics estimated again over 200 batches before the test. What still
departs from Detectron2 is listed in docs/transfer.md.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as run_lengths

from virtex import distributed
from virtex.data.checks import check_same_classes
from virtex.data.example import Example, Source, Subset
from virtex.data.masks import compressed_mask
from virtex.data.source import Needs, SourceConfig, resolved
from virtex.data.subsets import repeat_factors
from virtex.data.transforms import ImageConfig
from virtex.errors import ConfigError, DataError
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
    TrainingOptions,
    batches_of,
    forward,
    predict_all,
    run_training,
    trainable_copy,
)

DETECTOR = 2
"""Version of the detectors; raise it where the same options would mean other weights or numbers."""
TEST_ONLY = ("score_threshold", "num_detections", "num_test_candidates", "num_test_proposals")
"""Options of regions that do not affect the weights."""


@dataclass(frozen=True, kw_only=True)
class DetectionProtocolConfig(TrainingOptions, CommandConfig):
    """Options of `virtex transfer coco-segmentation`, `lvis-segmentation` and `voc-detection`."""

    data: SourceConfig = field(default_factory=lambda: SourceConfig(source="coco"))
    metric: Literal["coco", "lvis", "voc"] = "coco"
    """coco: AP over IoU 0.5 to 0.95, at 0.5, at 0.75, by size; lvis: federated, by frequency; voc:
    the same IoUs with the 11-point areas of VOC 2007 (voc07_AP), and COCO's AP beside it."""
    task: DetectionConfig = field(default_factory=DetectionConfig)
    frozen_norm: bool = False
    """Freeze statistics, weights and biases of the backbone's BatchNorm (FrozenBN)."""
    repeat_threshold: float = 0.0
    """Fraction of images showing a class, below which its images are repeated (LVIS: 0.001)."""
    num_statistics_batches: int = 200
    """Training batches for estimating BatchNorm's statistics again before the test; 0: none."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.num_statistics_batches < 0:
            problems.append(f"num_statistics_batches {self.num_statistics_batches} is negative")
        if not 0 <= self.repeat_threshold <= 1:
            problems.append(f"repeat_threshold {self.repeat_threshold} must be from 0 to 1")
        return problems


@dataclass(frozen=True, kw_only=True)
class DetectionProtocol(Protocol):
    """Detection: the boxes of all objects."""

    headline: ClassVar[str] = "box_AP"
    needs: ClassVar[Needs] = Needs(objects=True)
    config: DetectionProtocolConfig
    training: Training

    def settings(self) -> dict[str, Any]:
        config = self.config
        return {
            "detector": DETECTOR,
            "metric": config.metric,
            "image_size": config.task.test_size,
            **asdict(config.task),
            **self.training.settings(),
            "frozen_norm": config.frozen_norm,
            "repeat_threshold": config.repeat_threshold,
            "num_statistics_batches": config.num_statistics_batches,
        }

    @property
    def device(self) -> torch.device:
        return self.training.device

    def check(self, train: Source, test: Source) -> None:
        check_same_classes(train, test)
        for source, name in ((train, "training"), (test, "test")):
            check_objects(source, name)
        if self.config.metric == "lvis" and not test.frequencies:
            raise ConfigError(
                "metric lvis needs classes marked rare, common or frequent, which these data have "
                "not; give --data.source lvis, or --metric coco."
            )

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        train = with_objects(train)
        task = self._trained(backbone, train, test)
        predictions = predict_all(
            task,
            test,
            _Detector(task),
            self.training,
            encode=task.encode_image,
            images_at_once=1,  # padding to other images' size would change the detections
        )
        if not distributed.is_main():
            return {}
        ground_truth = [
            ground_truth_of(test[index], size, with_masks=self.config.task.masks)
            for index, (size, _) in predictions.items()
        ]
        detections = [detected for _, detected in predictions.values()]
        scores = self._scores(ground_truth, detections, test)
        counts = {"num_train": float(len(train)), "num_test": float(len(predictions))}
        return {**{name: 100 * score for name, score in scores.items()}, **counts}

    def _trained(self, backbone: Backbone, train: Source, test: Source) -> Detection:
        training = self.training.for_images(len(train), seed=self.seed)
        frozen_norm, threshold = self.config.frozen_norm, self.config.repeat_threshold
        num_batches = self.config.num_statistics_batches
        torch.manual_seed(self.seed)
        task = self.config.task.build(
            trainable_copy(backbone, frozen_norm=frozen_norm),
            TaskData(ImageConfig(), None, train.categories, len(train)),
        )
        repeats = repeat_factors(train, threshold) if threshold else None
        own = [DETECTOR, training_options(self.config.task), frozen_norm, threshold]
        key = [*own, backbone_digest(backbone), data_identity(train)]
        run_training(task, training, train=train, test=test, key=key, repeats=repeats)
        if num_batches:
            run = partial(forward, task, training)
            with closing(batches_of(train, task, training, repeats=repeats)) as batches:
                pieces = chain.from_iterable(batches)
                estimate_statistics(task, pieces, run, num_batches=num_batches, seed=self.seed)
        return task

    def _scores(
        self,
        ground_truth: Sequence[GroundTruth],
        detections: Sequence[DetectedObjects],
        test: Source,
    ) -> dict[str, float]:
        both, num_classes = (ground_truth, detections), len(test.categories)
        limit = self.config.task.regions.num_detections
        if self.config.metric == "lvis":
            return lvis_scores(*both, frequencies=test.frequencies, max_detections=limit)
        scores = coco_scores(*both, num_classes=num_classes, max_detections=limit)
        if self.config.metric == "voc":
            return voc_scores(*both, num_classes=num_classes) | scores
        return scores


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol(DetectionProtocol):
    """Instance segmentation: the boxes and masks of all objects."""

    headline: ClassVar[str] = "mask_AP"
    needs: ClassVar[Needs] = Needs(objects=True, masks=True)


@dataclass(frozen=True, kw_only=True)
class VocDetectionProtocol(DetectionProtocol):
    """Detection, with the average precision that papers report on VOC."""

    headline: ClassVar[str] = "voc07_AP"


@dataclass(frozen=True)
class _Detector:
    """Sizes (height and width) and detections of the images of a batch."""

    task: Detection

    def __call__(self, batch: Batch) -> list[tuple[tuple[int, int], DetectedObjects]]:
        sizes = [(height, width) for height, width in batch["image_sizes"].tolist()]
        return [
            (size, detected_objects(detections))
            for size, detections in zip(sizes, self.task.predict(batch), strict=True)
        ]


def training_options(task: DetectionConfig) -> dict[str, Any]:
    """Return the options that trained weights depend on, as plain values."""
    options = asdict(task)
    del options["test_size"]
    for name in TEST_ONLY:
        del options["regions"][name]
    return options


def check_objects(source: Source, name: str) -> None:
    """Check that there are objects to detect.

    Raises:
        DataError: Every object is a crowd or marked difficult, or there are none.
    """
    for index in range(len(source)):
        if source.labels(index):
            example = source[index]
            none = (False,) * len(example.box_labels)
            marks = zip(example.crowd or none, example.difficult or none, strict=True)
            if not all(crowd or difficult for crowd, difficult in marks):
                return
    raise DataError(
        f"none of the {len(source):,} {name} images has an object to detect: there are none, or "
        "only crowds and difficult ones. Give annotations with objects."
    )


def with_objects(source: Source) -> Source:
    """Return the images with objects; the others would teach nothing but the background.

    Difficult objects count: they are trained on, although an image whose only objects of a class
    are difficult does not have the label of that class.
    """
    shown = [
        index
        for index in range(len(source))
        if source.labels(index) or any(source[index].difficult)
    ]
    return source if len(shown) == len(source) else Subset(source, shown)


def detected_objects(detections: Detections) -> DetectedObjects:
    """Return the detections in an image as arrays, with masks as run lengths."""
    masks = detections.masks
    return DetectedObjects(
        boxes=detections.boxes.float().cpu().numpy(),
        labels=detections.labels.cpu().numpy() - 1,
        scores=detections.scores.float().cpu().numpy(),
        masks=None if masks is None else encode_masks(masks.cpu().numpy()),
    )


def ground_truth_of(example: Example, size: tuple[int, int], *, with_masks: bool) -> GroundTruth:
    """Return the ground truth of an image of a height and width."""
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
    """Return areas (M,) of the annotations, or else of the masks, or else of the boxes."""
    if example.areas is not None:
        return example.areas
    if masks:
        return np.asarray([run_lengths.area(mask) for mask in masks], np.float64)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def protocol(config: DetectionProtocolConfig) -> DetectionProtocol:
    """Return the protocol that a command describes.

    Raises:
        ConfigError: Training options that contradict each other.
    """
    boxes = VocDetectionProtocol if config.metric == "voc" else DetectionProtocol
    kind = SegmentationProtocol if config.task.masks else boxes
    return kind(
        name=protocol_name(config),
        config=config,
        training=config.training(config.folder),
    )


def protocol_name(config: DetectionProtocolConfig) -> str:
    """Return a name by the source, so that other data do not pass for the benchmark's."""
    return f"{config.data.source}-{'segmentation' if config.task.masks else 'detection'}"


def run(config: DetectionProtocolConfig) -> list[Result]:
    """Train a detector on a backbone, test it, and write the results."""
    needs = Needs(objects=True, masks=config.task.masks)
    config = replace(config, data=resolved(config.data, needs))
    return run_protocol(protocol(config), config, config.data)
