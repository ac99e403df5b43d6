"""Finished detectors: written at the end of a training, and read to be tested without another.

A detector's weights file is one of this package (zoo/weights_file.py): `backbone` and `detector` in
its config hold the network's options, its classes are those of the training data, and BatchNorm's
statistics are those of the test. A run of the pretext task instance_segmentation is a detector too.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from virtex.config import from_dict, to_dict
from virtex.data.checks import quoted
from virtex.data.example import Source
from virtex.data.transforms import ImageConfig
from virtex.errors import CheckpointError, ConfigError, DataError, listing
from virtex.models.backbone import Backbone
from virtex.models.state_dict import build_strictly
from virtex.tasks.base import TaskData
from virtex.tasks.detection import Detection, DetectionConfig, InstanceSegmentationConfig
from virtex.zoo.init import Opened
from virtex.zoo.weights_file import WEIGHTS_NAME, save_weights

TEST_ONLY = ("score_threshold", "num_detections", "num_test_candidates", "num_test_proposals")
"""Options of regions that do not affect the weights."""
DETECTOR_KEY = "detector"
"""Name in the config of a weights file of the options of a detector."""
log = logging.getLogger("virtex")


def save_detector(
    folder: Path,
    task: Detection,
    options: DetectionConfig,
    *,
    training: Mapping[str, Any],
    categories: tuple[str, ...],
    step: int,
) -> None:
    """Write a detector in the folder of its training, where INIT finds it.

    Args:
        training: Options of the training, as plain values.
        categories: Names of its classes.
    """
    config = {
        "backbone": to_dict(task.backbone.config),
        DETECTOR_KEY: to_dict(options),
        "training": dict(training),
    }
    path, state = folder / WEIGHTS_NAME, task.state_dict()
    save_weights(path, state, config=config, tokenizer=None, step=step, categories=categories)
    log.info("wrote the detector; --init %s --evaluate_only tests it again", folder)


def options_of(opened: Opened, requested: DetectionConfig) -> DetectionConfig:
    """Return the options of an INIT's detector, with those of the test as requested.

    Raises:
        CheckpointError: INIT holds no detector.
        ConfigError: It predicts no masks, and masks are requested.
    """
    own = _own_options(opened)
    if requested.masks and not own.masks:
        raise ConfigError(
            f"{opened.path} predicts no masks: give --task.masks false, which scores its boxes."
        )
    test = {name: getattr(requested.regions, name) for name in TEST_ONLY}
    regions = replace(own.regions, **test)
    differ = [
        name
        for name, value in vars(regions).items()
        if value != getattr(requested.regions, name) and name not in TEST_ONLY
    ]
    if differ:
        log.info("the detector keeps its own task.regions.%s", listing(differ))
    return replace(
        own,
        regions=regions,
        train_sizes=(requested.test_size,),
        test_size=requested.test_size,
        max_size=requested.max_size,
    )


def load_detector(opened: Opened, options: DetectionConfig) -> Detection:
    """Return the detector of an INIT, on the CPU in evaluation mode.

    Raises:
        CheckpointError: INIT does not state its classes, or the weights do not fit its options.
    """
    if not opened.categories:
        raise CheckpointError(
            f"{opened.path} does not state which classes it detects. Give the folder of a finished "
            f"training: {WEIGHTS_NAME} is written there at its end."
        )
    data = TaskData(ImageConfig(), None, opened.categories)
    with torch.random.fork_rng(devices=[]):  # random initialization, which is overwritten
        task = build_strictly(
            lambda: options.build(Backbone(opened.backbone), data),
            opened.state,
            subject=opened.path,
        )
    return task.eval()


def check_classes(opened: Opened, test: Source) -> None:
    """Check that a label means the same class to a detector as in the test.

    Raises:
        DataError: The classes differ.
    """
    if opened.categories == test.categories:
        return
    differ = sorted(set(opened.categories) ^ set(test.categories))
    raise DataError(
        f"{opened.path} detects {len(opened.categories)} classes and the test images have "
        f"{len(test.categories)}; not in both: "
        f"{listing(quoted(name) for name in differ) or 'none, but their order differs'}. Give test "
        "images annotated with the detector's classes."
    )


def _own_options(opened: Opened) -> DetectionConfig:
    """Return the options with which a detector was trained."""
    if opened.kind != "run":
        raise _no_detector(opened)
    if DETECTOR_KEY in opened.config:
        try:
            return from_dict(DetectionConfig, opened.config[DETECTOR_KEY])
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{opened.path}: its detector cannot be read: {error}") from error
    if "task" not in opened.config:
        raise _no_detector(opened)
    task = opened.trained.task
    if not isinstance(task, InstanceSegmentationConfig):
        raise _no_detector(opened)
    return DetectionConfig(architecture="fpn", regions=task.regions, masks=task.masks)


def _no_detector(opened: Opened) -> CheckpointError:
    return CheckpointError(
        f"{opened.path} holds no finished detector. --evaluate_only takes OUT/training/*, the "
        "folder of a finished coco-segmentation, lvis-segmentation or voc-detection, its "
        f"{WEIGHTS_NAME} (which the same command writes if an earlier version did not), or a run "
        "of instance_segmentation. Without --evaluate_only the backbone of INIT is fine-tuned."
    )
