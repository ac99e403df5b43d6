"""Object detection: Mask R-CNN as a pretext task, and detectors that fine-tune a backbone.

He et al., "Mask R-CNN" (ICCV 2017). The pretext task trains Mask R-CNN on square images from random
weights; the backbone alone is transferred. Transfer fine-tunes a pretrained backbone in Mask R-CNN
or in Faster R-CNN C4 (models/c4.py), on images resized by their shorter side. The loss is the sum
of five: objectness and box offset of anchors; class, box offset and mask of regions.
"""

from dataclasses import dataclass, field
from functools import partial
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
from virtex.models.region_targets import Targets
from virtex.tasks.base import Batch, Collate, Encode, Task, TaskConfig, TaskData, TaskOutput


@dataclass(frozen=True)
class InstanceSegmentationConfig(TaskConfig):
    """Predict each object's class, box and mask (Mask R-CNN).

    The image options size, flip_prob and color jitter apply; scale and ratio do not, since an image
    keeps its aspect ratio and `zoom` replaces them.
    """

    regions: RegionConfig = field(default_factory=RegionConfig)
    masks: bool = True
    """Train the mask head; set it to false for data without masks (voc)."""
    zoom: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest zoom of a training image; at 1 its longer side equals image.size. Larger
    images are cropped at random, smaller ones padded."""

    def __post_init__(self) -> None:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ConfigError(f"task: zoom {self.zoom} must be two rising numbers above 0")

    @property
    def needs(self) -> Needs:
        return Needs(objects=True, masks=self.masks, can_do_without="--task.masks false")

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
    """Fine-tune a backbone inside a detector, for transfer.

    Images are resized and flipped by these options alone; no image option applies.
    """

    architecture: Literal["fpn", "c4"] = "fpn"
    """fpn: Mask R-CNN (Faster R-CNN without masks) on a feature pyramid. c4: Faster R-CNN on the
    grid of stride 16, with the backbone's last stage as its head."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    masks: bool = True
    """Train the mask head, which needs fpn and data with masks."""
    train_sizes: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Lengths in pixels from which a training image's shorter side is drawn."""
    test_size: int = 800
    """Length in pixels of a validation image's shorter side."""
    max_size: int = 1333
    """Maximum length in pixels of the longer side, which limits the shorter one in proportion."""
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
        return Needs(objects=True, masks=self.masks, can_do_without="--task.masks false")

    def build(self, backbone: Backbone, data: TaskData) -> "Detection":
        test = (self.test_size,), self.max_size, 0.0
        return Detection(
            self._detector(backbone, num_categories=len(data.categories)),
            encode=ShorterSideTransform(
                self.train_sizes, self.max_size, self.flip_prob, self.masks
            ),
            encode_validation=ShorterSideTransform(*test, self.masks),
            encode_image=ShorterSideTransform(*test, False),
            collate=ObjectCollate(multiple=backbone.stride),
        )

    def _detector(self, backbone: Backbone, *, num_categories: int) -> RegionDetector:
        if self.architecture == "c4":
            return build_c4(backbone, self.regions, num_categories=num_categories)
        return build_mask_rcnn(
            backbone, self.regions, num_categories=num_categories, with_masks=self.masks
        )


class Detection(Task):
    """A detector, and how it encodes examples."""

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
        """Encoding for `predict`: that for validation, without masks."""
        self.dynamic = {"boxes": 1, "box_labels": 1, "masks": 1}

    @property
    def backbone(self) -> Backbone:
        """The detector's backbone."""
        return self.detector.backbone

    def no_weight_decay(self) -> set[str]:
        """Return the weights and biases of BatchNorm, as in Detectron2."""
        norms = {value for layer in batch_norms(self) for value in layer.parameters(recurse=False)}
        return {name for name, parameter in self.named_parameters() if parameter in norms}

    def forward(self, batch: Batch) -> TaskOutput:
        losses = self.detector.losses(
            normalize(batch["image"]), batch["sizes"], detection_targets(batch)
        )
        logs = {name: loss.detach() for name, loss in losses.items()}
        return TaskOutput(torch.stack(list(losses.values())).sum(), logs)

    def predict(self, batch: Batch) -> list[Detections]:
        """Return the detections of each image, in pixels of its file."""
        return self.detector.predict(
            normalize(batch["image"]),
            _sizes(batch["sizes"]),
            image_sizes=_sizes(batch["image_sizes"]),
        )


def detection_targets(batch: Batch) -> Targets:
    """Return the ground truth of a batch, with masks if it has any."""
    masks = partial(_masks_of, batch) if "masks" in batch else None
    return Targets(batch["boxes"], batch["box_labels"], batch["sampling_seed"], masks)


def _masks_of(batch: Batch, index: int) -> Tensor:
    """Return the masks (M, H, W) of an image of a batch."""
    return unpack_masks(batch["masks"][index], *batch["image"].shape[2:])


def _sizes(sizes: Tensor) -> list[tuple[int, int]]:
    """Return heights and widths (B, 2) as pairs."""
    return [(height, width) for height, width in sizes.tolist()]
