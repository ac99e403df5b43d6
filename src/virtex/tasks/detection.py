"""Find objects: Mask R-CNN as a pretext task, and detectors around a backbone to be judged.

He et al., "Mask R-CNN" (ICCV 2017). As a pretext task it is learned on COCO from a random start,
after which the backbone alone is transferred; images are squares. For transfer a pretrained
backbone is fine-tuned in Mask R-CNN or in Faster R-CNN C4 (models/c4.py), on images resized by
their shorter side. The loss is the sum of five: whether an anchor holds an object, and where; of
which class a region is, where its box is, and which pixels are the object.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from virtex.data.masks import unpack_masks
from virtex.data.object_transforms import ShorterSideTransform, WholeImageTransform, ZoomTransform
from virtex.data.objects import ObjectCollate
from virtex.data.source_options import Needs
from virtex.data.transforms import normalize
from virtex.errors import ConfigError, raise_all
from virtex.models.backbone import Backbone
from virtex.models.batch_norm import batch_norms
from virtex.models.c4 import build_c4
from virtex.models.region_heads import Detections, RegionConfig, RegionDetector, build_mask_rcnn
from virtex.tasks.base import Batch, Collate, Encode, Task, TaskConfig, TaskData, TaskOutput


@dataclass(frozen=True)
class InstanceSegmentationConfig(TaskConfig):
    """Find each object: its class, box and mask (Mask R-CNN).

    Of the image options size, flip_prob and the colour jitter apply; scale and ratio do not, as an
    image keeps its shape and `zoom` takes their place.
    """

    regions: RegionConfig = field(default_factory=RegionConfig)
    masks: bool = True
    """Learn masks; false learns boxes and classes alone, for data that has no masks (voc)."""
    zoom: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest zoom of a training image; at 1 its longer side just fits into
    image.size. What is then too large is cropped at random, what is missing is padded."""

    def __post_init__(self) -> None:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ConfigError(f"task: zoom {self.zoom} must be two rising numbers above 0")

    @property
    def needs(self) -> Needs:
        return Needs(objects=True, masks=self.masks)

    def build(self, backbone: Backbone, data: TaskData) -> "Detection":
        detector = build_mask_rcnn(
            backbone, self.regions, num_categories=len(data.categories), with_masks=self.masks
        )
        return Detection(
            detector,
            encode=ZoomTransform(data.image, self.zoom, self.masks),
            encode_validation=WholeImageTransform(data.image.size, self.masks),
            encode_image=WholeImageTransform(data.image.size, False),
            collate=ObjectCollate(size=data.image.size),
        )


@dataclass(frozen=True)
class DetectionConfig(TaskConfig):
    """Fine-tune a backbone inside a detector: for transfer, no pretext task.

    Images are resized and flipped as said here; none of the image options applies.
    """

    architecture: Literal["fpn", "c4"] = "fpn"
    """fpn: Mask R-CNN (without masks Faster R-CNN) on a feature pyramid. c4: Faster R-CNN on the
    grid of stride 16, the backbone's last stage run on each region."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    masks: bool = True
    """Learn masks, which needs fpn and data that has masks."""
    train_sizes: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Lengths of a training image's shorter side in pixels; one is drawn each time."""
    test_size: int = 800
    """Length of a validation image's shorter side."""
    max_size: int = 1333
    """The longer side becomes no longer than this; the shorter one follows."""
    flip_prob: float = 0.5
    """Probability of a left-right flip in training."""

    def __post_init__(self) -> None:
        sizes = (*self.train_sizes, self.test_size)
        checks = {
            "masks need the architecture fpn: set masks to false for c4": (
                self.masks and self.architecture == "c4"
            ),
            "regions.pyramid_norm is set, and c4 has no pyramid: leave it out": (
                self.regions.pyramid_norm and self.architecture == "c4"
            ),
            "train_sizes is empty: give one or more lengths": not self.train_sizes,
            f"train_sizes {self.train_sizes}, test_size {self.test_size} must be from 1 to "
            f"max_size {self.max_size}": not 1 <= min(sizes) <= max(sizes) <= self.max_size,
            f"flip_prob {self.flip_prob} must be from 0 to 1": not 0 <= self.flip_prob <= 1,
        }
        problems = [problem for problem, is_so in checks.items() if is_so]
        raise_all(ConfigError, "the options of detection cannot work", problems)

    @property
    def needs(self) -> Needs:
        return Needs(objects=True, masks=self.masks)

    def build(self, backbone: Backbone, data: TaskData) -> "Detection":
        return Detection(
            self._detector(backbone, num_categories=len(data.categories)),
            encode=ShorterSideTransform(
                self.train_sizes, self.max_size, self.flip_prob, self.masks
            ),
            encode_validation=ShorterSideTransform(
                (self.test_size,), self.max_size, 0.0, self.masks
            ),
            encode_image=ShorterSideTransform((self.test_size,), self.max_size, 0.0, False),
            collate=ObjectCollate(multiple=backbone.stride),
        )

    def _detector(self, backbone: Backbone, *, num_categories: int) -> RegionDetector:
        if self.architecture == "c4":
            return build_c4(backbone, self.regions, num_categories=num_categories)
        return build_mask_rcnn(
            backbone, self.regions, num_categories=num_categories, with_masks=self.masks
        )


class Detection(Task):
    """A detector, and the ways in which it reads examples."""

    def __init__(
        self,
        detector: RegionDetector,
        *,
        encode: Encode,
        encode_validation: Encode,
        encode_image: Encode,
        collate: Collate,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.encode, self.encode_validation, self.collate = encode, encode_validation, collate
        self.encode_image = encode_image
        """As `encode_validation`, without masks: all that `predict` needs."""

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.detector.backbone

    def no_weight_decay(self) -> set[str]:
        """Weights and biases of BatchNorm, as in Detectron2."""
        norms = {
            parameter
            for layer in batch_norms(self)
            for parameter in layer.parameters(recurse=False)
        }
        return {name for name, parameter in self.named_parameters() if parameter in norms}

    def forward(self, batch: Batch) -> TaskOutput:
        losses = self.detector.losses(
            normalize(batch["image"]), _sizes(batch["sizes"]), detection_targets(batch)
        )
        logs = {name: loss.detach() for name, loss in losses.items()}
        return TaskOutput(torch.stack(list(losses.values())).sum(), logs)

    def predict(self, batch: Batch) -> list[Detections]:
        """What is found in each image, in pixels of the images as their files have them."""
        images = normalize(batch["image"])
        return self.detector.predict(
            images, _sizes(batch["sizes"]), image_sizes=_sizes(batch["image_sizes"])
        )


def detection_targets(batch: Batch) -> list[dict[str, Tensor]]:
    """What the detector is to find in each image of a batch: boxes, labels, masks."""
    height, width = batch["image"].shape[2:]
    targets = []
    for place, number in enumerate(batch["num_objects"].tolist()):
        target = {
            "boxes": batch["boxes"][place, :number],
            "labels": batch["box_labels"][place, :number],
        }
        if "masks" in batch:
            target["masks"] = unpack_masks(batch["masks"][place, :number], height, width)
        targets.append(target)
    return targets


def _sizes(sizes: Tensor) -> list[tuple[int, int]]:
    """Heights and widths (B, 2) as pairs."""
    return [(height, width) for height, width in sizes.tolist()]
