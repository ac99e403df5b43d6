"""What the tests of objects are made of: drawn scenes, and images of a few plain masks."""

import dataclasses

import numpy as np

from virtex.data.example import Example
from virtex.data.masks import Placement, box_around, unpack_masks
from virtex.data.objects import Objects, find_objects
from virtex.data.sources.scenes import ScenesSource
from virtex.data.sources.scenes.scenes_source import run_lengths

SCENES = ScenesSource(12, image_size=64)


def filled(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A mask that is its box, x1 y1 x2 y2."""
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def example_of(*masks: np.ndarray, **changes) -> Example:
    """An image that is bright where a mask is, with these objects of class 0, 1, ..."""
    image = np.repeat(np.any(masks, axis=0)[:, :, None], 3, axis=2)
    example = Example(
        "1",
        image.astype(np.uint8) * 255,
        boxes=np.array([box_around(mask) for mask in masks], np.float32).reshape(-1, 4),
        box_labels=tuple(range(len(masks))),
        masks=tuple(run_lengths(mask) for mask in masks),
    )
    return dataclasses.replace(example, **changes)


def shape_of(example: Example) -> tuple[int, int]:
    return example.image.shape[:2]


def found(example: Example, placement: Placement) -> Objects:
    return find_objects(example, placement, image_size=shape_of(example), with_masks=True)


def masks_in(encoded: dict) -> np.ndarray:
    """The masks (M, h, w) of an encoded example."""
    height, width = encoded["image"].shape[1:]
    return unpack_masks(encoded["masks"].flatten(1), height, width).numpy().astype(bool)
