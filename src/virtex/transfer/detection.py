"""Detection and instance segmentation: the whole network fine-tuned, scored by average precision.

COCO and LVIS with Mask R-CNN on a feature pyramid, PASCAL VOC 07+12 with Faster R-CNN C4, as in
Desai and Johnson, "VirTex", CVPR 2021, section 4.3; the recipes hold their values. Everything else
follows Detectron2's defaults, as in the released code: 1,000 warm-up steps, no weight decay on
BatchNorm, and BatchNorm statistics estimated again over 200 batches before the test. What still
departs from Detectron2 is listed in docs/transfer.md.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Literal

import torch

from virtex import distributed
from virtex.data.checks import check_same_classes
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, resolved
from virtex.data.subsets import repeat_factors
from virtex.data.transforms import ImageConfig
from virtex.engine.run import choose_device
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.models.batch_norm import estimate_statistics
from virtex.models.pyramid import SimplePyramid
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.detection import Detection, DetectionConfig
from virtex.transfer.command import CommandConfig, open_data, run_protocol
from virtex.transfer.features import backbone_digest, data_identity
from virtex.transfer.metrics.detection import coco_scores, lvis_scores
from virtex.transfer.metrics.objects import DetectedObjects, GroundTruth
from virtex.transfer.metrics.voc_detection import voc_scores
from virtex.transfer.protocol import Protocol, Result
from virtex.transfer.scored_objects import (
    check_objects,
    detected_objects,
    ground_truth_of,
    with_objects,
)
from virtex.transfer.trained_detector import (
    TEST_ONLY,
    check_classes,
    load_detector,
    options_of,
    save_detector,
)
from virtex.transfer.training import (
    Training,
    TrainingOptions,
    batches_of,
    forward,
    predict_all,
    run_training,
    trainable_copy,
)
from virtex.transfer.whole_model import Measured, open_val_images, run_whole_model
from virtex.zoo.backbones import origin_of
from virtex.zoo.init import UNTRAINED, open_init_in_all

log = logging.getLogger("virtex")
DETECTOR = 2
"""Version of the detectors; raise it where the same options would mean other weights or numbers."""


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
    evaluate_only: bool = False
    """Test the detector of INIT and train nothing. INIT is the folder of a finished training,
    OUT/training/*, its weights file, or a run of instance_segmentation."""

    def open_device(self) -> torch.device:
        """Return the named device, or raise ConfigError if this machine lacks it."""
        return choose_device(self.run.device)

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.evaluate_only:
            problems += self._problems_of_evaluation()
        if self.num_statistics_batches < 0:
            problems.append(f"num_statistics_batches {self.num_statistics_batches} is negative")
        if not 0 <= self.repeat_threshold <= 1:
            problems.append(f"repeat_threshold {self.repeat_threshold} must be from 0 to 1")
        return problems

    def _problems_of_evaluation(self) -> list[str]:
        problems = []
        if self.init in UNTRAINED:
            problems.append(f"init {self.init} is no detector, which evaluate_only tests")
        given = [name for name in ("backbone", "backbone_from") if getattr(self, name) is not None]
        if given:
            problems.append(f"{' and '.join(given)}: with evaluate_only INIT states the network")
        if self.num_seeds > 1:
            problems.append(f"num_seeds {self.num_seeds}: a detector without training has one")
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
            **self._own_settings(),
        }

    def _own_settings(self) -> dict[str, Any]:
        config = self.config
        return {
            "frozen_norm": config.frozen_norm,
            "repeat_threshold": config.repeat_threshold,
            "num_statistics_batches": config.num_statistics_batches,
        }

    @property
    def device(self) -> torch.device:
        return self.training.device

    def check(self, train: Source, test: Source) -> None:
        check_same_classes(train, test)
        check_objects(train, "training")
        self.check_test(test)

    def check_test(self, test: Source) -> None:
        """Refuse test images on which nothing can be scored.

        Raises:
            ConfigError, DataError: No objects, or a metric that does not fit.
        """
        check_objects(test, "test")
        if self.config.metric == "lvis" and not test.frequencies:
            raise ConfigError(
                "metric lvis needs classes marked rare, common or frequent, which these data have "
                "not; give --data.source lvis, or --metric coco."
            )

    def measure(self, backbone: Backbone, *, train: Source, test: Source) -> dict[str, float]:
        train = with_objects(train)
        numbers = self.tested(self._trained(backbone, train, test), test)
        return {**numbers, "num_train": float(len(train))} if numbers else {}

    def tested(self, task: Detection, test: Source) -> dict[str, float]:
        """Return the numbers of a detector on the main process, none on the others."""
        with_masks = self.config.task.masks
        predictions = predict_all(
            task,
            test,
            _Detector(task, with_masks),
            self.training,
            encode=task.encode_image,
            images_at_once=1,  # padding to other images' size would change the detections
        )
        if not distributed.is_main():
            return {}
        ground_truth = [
            ground_truth_of(test[index], size, with_masks=with_masks)
            for index, (size, _) in predictions.items()
        ]
        detections = [detected for _, detected in predictions.values()]
        scores = self._scores(ground_truth, detections, test)
        numbers = {name: 100 * score for name, score in scores.items()}
        return {**numbers, "num_test": float(len(predictions))}

    def _trained(self, backbone: Backbone, train: Source, test: Source) -> Detection:
        training = self.training.for_images(len(train), seed=self.seed)
        frozen_norm, threshold = self.config.frozen_norm, self.config.repeat_threshold
        num_batches = self.config.num_statistics_batches
        torch.manual_seed(self.seed)
        task = self.config.task.build(
            trainable_copy(backbone, frozen_norm=frozen_norm, any_size=True),
            TaskData(ImageConfig(), None, train.categories, len(train)),
        )
        repeats = repeat_factors(train, threshold) if threshold else None
        own = [DETECTOR, training_options(self.config.task), frozen_norm, threshold]
        own += [SimplePyramid.__name__] if backbone.is_sequence else []
        key = [*own, backbone_digest(backbone), data_identity(train)]
        folder = run_training(task, training, train=train, test=test, key=key, repeats=repeats)
        if num_batches:
            run = partial(forward, task, training)
            with closing(batches_of(train, task, training, repeats=repeats)) as batches:
                pieces = chain.from_iterable(batches)
                estimate_statistics(task, pieces, run, num_batches=num_batches, seed=self.seed)
        if distributed.is_main():
            save_detector(
                folder,
                task,
                self.config.task,
                training={**training.settings(), "seed": self.seed, **self._own_settings()},
                categories=train.categories,
                step=training.run.num_steps,
            )
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
    with_masks: bool

    def __call__(self, batch: Batch) -> list[tuple[tuple[int, int], DetectedObjects]]:
        sizes = [(height, width) for height, width in batch["image_sizes"].tolist()]
        found = self.task.predict(batch)
        if not self.with_masks:
            found = [detections._replace(masks=None) for detections in found]
        return [
            (size, detected_objects(detections))
            for size, detections in zip(sizes, found, strict=True)
        ]


def training_options(task: DetectionConfig) -> dict[str, Any]:
    """Return the options that trained weights depend on, as plain values."""
    options = asdict(task)
    del options["test_size"]
    for name in TEST_ONLY:
        del options["regions"][name]
    return options


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


def open_images(config: DetectionProtocolConfig) -> dict[str, Source]:
    """Open and check the images of `run`, by their roles."""
    config = _with_layout(config)
    if not config.evaluate_only:
        return open_data(protocol(config), config, config.data)
    test = _test_images(config)
    protocol(config).check_test(test)
    return {"test": test}


def _test_images(config: DetectionProtocolConfig) -> Source:
    return open_val_images(config.data, _needs(config), purpose="test")


def _needs(config: DetectionProtocolConfig) -> Needs:
    return Needs(objects=True, masks=config.task.masks)


def _with_layout(config: DetectionProtocolConfig) -> DetectionProtocolConfig:
    """Return the options with the layout that `auto` stands for."""
    return replace(config, data=resolved(config.data, _needs(config)))


def run(config: DetectionProtocolConfig) -> list[Result]:
    """Train a detector on a backbone, or take that of INIT, test it, and write the results."""
    config = _with_layout(config)
    if config.evaluate_only:
        log.info(
            "evaluate_only trains nothing: frozen_norm, repeat_threshold, num_statistics_batches, "
            "optim.* and the length of the training have no effect"
        )
        return run_whole_model(config, partial(_test_images, config), partial(_evaluate, config))
    return run_protocol(protocol(config), config, config.data)


def _network_options(task: DetectionConfig) -> dict[str, Any]:
    """Return the options of a detector that is not trained, as plain values."""
    options = asdict(task)
    del options["train_sizes"], options["flip_prob"]
    return options


def _evaluate(
    config: DetectionProtocolConfig, test: Source, device: torch.device
) -> Measured | None:
    """Return the scores of the detector of INIT on test images."""
    del device  # that of the training options
    own = protocol(config)
    own.check_test(test)
    opened = open_init_in_all(config.init)
    options = options_of(opened, config.task)
    check_classes(opened, test)
    numbers = own.tested(load_detector(opened, options), test)
    if not numbers:
        return None
    return Measured(
        protocol=own.name,
        headline=own.headline,
        numbers=numbers,
        settings={
            "detector": DETECTOR,
            "metric": config.metric,
            "image_size": options.test_size,
            **_network_options(options),
            "scores_masks": config.task.masks,
            "precision": own.training.run.precision,
            "evaluate_only": True,
        },
        initialisation=origin_of(opened).record(),
    )
