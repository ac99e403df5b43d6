"""Instance segmentation as a pretext task: Mask R-CNN trained from scratch.

He et al., "Mask R-CNN" (ICCV 2017), as VirTex's tables use it: learned on COCO from a random start,
after which the backbone alone is transferred. The loss is the sum of five: whether an anchor holds
an object, and where; of which class a region is, where its box is, and which pixels are the object.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from virtex.data.objects import (
    ObjectTrainTransform,
    ObjectValidationTransform,
    collate_objects,
    unpack_masks,
)
from virtex.data.source_options import Needs
from virtex.data.transforms import normalize
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone
from virtex.models.region_heads import Detections, RegionConfig, build_mask_rcnn
from virtex.tasks.base import Batch, Task, TaskConfig, TaskData, TaskOutput


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

    def build(self, backbone: Backbone, data: TaskData) -> "InstanceSegmentation":
        return InstanceSegmentation(self, backbone, data)


class InstanceSegmentation(Task):
    """Mask R-CNN, and the two ways in which it reads examples."""

    def __init__(
        self, config: InstanceSegmentationConfig, backbone: Backbone, data: TaskData
    ) -> None:
        super().__init__()
        self.detector = build_mask_rcnn(
            backbone,
            config.regions,
            num_categories=len(data.categories),
            with_masks=config.masks,
        )
        self.encode = ObjectTrainTransform(data.image, config.zoom, config.masks)
        self.encode_validation = ObjectValidationTransform(data.image, config.masks)
        self.collate = collate_objects

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.detector.backbone

    def forward(self, batch: Batch) -> TaskOutput:
        losses = self.detector.losses(
            normalize(batch["image"]), _sizes(batch["sizes"]), targets_of(batch)
        )
        logs = {name: loss.detach() for name, loss in losses.items()}
        return TaskOutput(torch.stack(list(losses.values())).sum(), logs)

    def predict(self, batch: Batch, image_sizes: Tensor) -> list[Detections]:
        """What is found in each image, in pixels of the images as they were before resizing.

        Args:
            image_sizes: (B, 2) their heights and widths.
        """
        images = normalize(batch["image"])
        return self.detector.predict(
            images, _sizes(batch["sizes"]), image_sizes=_sizes(image_sizes)
        )


def targets_of(batch: Batch) -> list[dict[str, Tensor]]:
    """What the detector is to find in each image of a batch: boxes, labels, masks."""
    height, width = batch["image"].shape[2:]
    targets = []
    for place, labels in enumerate(batch["box_labels"]):
        is_object = labels > 0
        target = {"boxes": batch["boxes"][place, is_object], "labels": labels[is_object]}
        if "masks" in batch:
            target["masks"] = unpack_masks(batch["masks"][place, is_object], height, width)
        targets.append(target)
    return targets


def _sizes(sizes: Tensor) -> list[tuple[int, int]]:
    """Heights and widths (B, 2) as pairs."""
    return [(height, width) for height, width in sizes.tolist()]
