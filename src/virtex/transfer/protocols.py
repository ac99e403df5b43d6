"""The protocols of `virtex transfer` by name; the recipe of that name is read first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    about: str
    """Beginning of its help: what it measures, and on what data."""


PROTOCOLS: dict[str, Command] = {
    "voc07": Command(voc07.Voc07Config, voc07.run, ABOUT["voc07"]),
    "linear": Command(linear.LinearConfig, linear.run, ABOUT["linear"]),
    "imagenet": Command(
        image_classification.ImageClassificationConfig, image_classification.run, ABOUT["imagenet"]
    ),
    "inaturalist": Command(
        image_classification.ImageClassificationConfig,
        image_classification.run,
        ABOUT["inaturalist"],
    ),
    "finetune": Command(
        image_classification.ImageClassificationConfig, image_classification.run, ABOUT["finetune"]
    ),
    "coco-segmentation": Command(
        detection.DetectionProtocolConfig, detection.run, ABOUT["coco-segmentation"]
    ),
    "lvis-segmentation": Command(
        detection.DetectionProtocolConfig, detection.run, ABOUT["lvis-segmentation"]
    ),
    "voc-detection": Command(
        detection.DetectionProtocolConfig, detection.run, ABOUT["voc-detection"]
    ),
    "captioning": Command(captioning.CaptioningProtocolConfig, captioning.run, ABOUT["captioning"]),
    "zero-shot": Command(zero_shot.ZeroShotConfig, zero_shot.run, ABOUT["zero-shot"]),
    "retrieval": Command(retrieval.RetrievalConfig, retrieval.run, ABOUT["retrieval"]),
}
