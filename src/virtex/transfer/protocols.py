"""The protocols of `virtex transfer` by name; the recipe of that name is read first."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from virtex.data.example import Source
from virtex.transfer import (
    captioning,
    detection,
    image_classification,
    linear,
    retrieval,
    voc07,
    zero_shot,
)
from virtex.transfer.protocol import Result
from virtex.transfer.protocol_names import ABOUT


@dataclass(frozen=True)
class Command:
    """A protocol as a command: `virtex transfer NAME`."""

    config: type
    """Class of its options."""
    run: Callable[[Any], list[Result]]
    """Function from the options to a result for each seed."""
    open_images: Callable[[Any], dict[str, Source]]
    """Function that opens and checks the images of `run`, by their roles: train and test."""
    about: str
    """Beginning of its help: what it measures, and on what data."""


def _trained(name: str, module: ModuleType, config: type) -> Command:
    return Command(config, module.run, module.open_images, ABOUT[name])


def _tested(name: str, module: ModuleType, config: type) -> Command:
    """Return the command of a protocol that trains nothing."""
    open_images = partial(_as_test, module.test_images)
    return Command(config, module.run, open_images, ABOUT[name])


def _as_test(test_images: Callable[[Any], Source], config: object) -> dict[str, Source]:
    return {"test": test_images(config)}


PROTOCOLS: dict[str, Command] = {
    name: _trained(name, module, config)
    for name, module, config in (
        ("voc07", voc07, voc07.Voc07Config),
        ("linear", linear, linear.LinearConfig),
        ("imagenet", image_classification, image_classification.ImageClassificationConfig),
        ("inaturalist", image_classification, image_classification.ImageClassificationConfig),
        ("finetune", image_classification, image_classification.ImageClassificationConfig),
        ("coco-segmentation", detection, detection.DetectionProtocolConfig),
        ("lvis-segmentation", detection, detection.DetectionProtocolConfig),
        ("voc-detection", detection, detection.DetectionProtocolConfig),
    )
} | {
    name: _tested(name, module, config)
    for name, module, config in (
        ("captioning", captioning, captioning.CaptioningProtocolConfig),
        ("zero-shot", zero_shot, zero_shot.ZeroShotConfig),
        ("retrieval", retrieval, retrieval.RetrievalConfig),
    )
}
