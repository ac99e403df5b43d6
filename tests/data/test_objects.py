"""The objects of an image: visible ones, flips and batches."""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.small_objects import SCENES, example_of, filled, found
from virtex.data.example import Example
from virtex.data.images import Box
from virtex.data.masks import Placement, box_around, unpack_masks
from virtex.data.object_transforms import WholeImageTransform, place_in_square
from virtex.data.objects import (
    ObjectCollate,
    Objects,
    encode_objects,
    find_objects,
    flip_objects,
)
from virtex.data.sources.scenes.scenes_source import run_lengths
from virtex.errors import DataError
from virtex.imagenet import IMAGENET_MEAN


def test_a_flip_moves_all_alike_and_twice_is_the_identity():
    objects = found(SCENES[0], place_in_square(64, 64, size=64))
    flipped = flip_objects(objects, 64)
    assert np.array_equal(flipped.masks, objects.masks[:, :, ::-1])
    for box, mask in zip(flipped.boxes, flipped.masks, strict=True):
        assert np.abs(box_around(mask) - box).max() <= 1.5
    for back, before in zip(flip_objects(flipped, 64), objects, strict=True):
        assert np.array_equal(back, before)


def test_crowds_and_objects_outside_the_crop_are_left_out():
    masks = [filled(40, 40, (30, 30, 38, 38)), filled(40, 40, (2, 2, 9, 9))]
    masks += [filled(40, 40, (5, 5, 12, 12))]
    example = example_of(*masks, crowd=(False, True, False))
    objects = found(example, Placement(Box(0, 0, 20, 20), 20, 20))
    assert objects.labels.tolist() == [3]
    assert objects.boxes.tolist() == [[5, 5, 12, 12]]


def test_boxes_without_area_are_left_out():
    boxes = np.array([[3, 3, 3, 9], [2, 2, 8, 8]], np.float32)
    mask = run_lengths(filled(20, 20, (2, 2, 8, 8)))
    example = Example(
        "1", np.zeros((20, 20, 3), np.uint8), boxes=boxes, box_labels=(4, 5), masks=(mask, mask)
    )
    for with_masks in (True, False):
        objects = find_objects(
            example, place_in_square(20, 20, size=20), image_size=(20, 20), with_masks=with_masks
        )
        assert objects.labels.tolist() == [6]


def test_an_object_that_the_crop_cuts_gets_a_box_around_what_is_left():
    corner = filled(40, 40, (0, 0, 40, 6)) | filled(40, 40, (0, 0, 6, 40))  # an L lying on its back
    objects = found(example_of(corner), Placement(Box(0, 10, 30, 30), 30, 30))
    assert objects.boxes.tolist() == [[0, 0, 30, 6]]


def test_an_object_is_dropped_where_its_box_is_seen_but_nothing_of_it():
    corner = filled(40, 40, (0, 0, 40, 6)) | filled(40, 40, (0, 0, 6, 40))
    assert not len(found(example_of(corner), Placement(Box(10, 10, 30, 30), 30, 30)).labels)


def test_an_object_that_shrinks_to_nothing_is_dropped():
    thin = filled(40, 40, (0, 1, 40, 2))
    assert len(found(example_of(thin), place_in_square(40, 40, size=40)).labels) == 1
    assert not len(found(example_of(thin), place_in_square(40, 40, size=10)).labels)


def test_padding_has_the_mean_color_and_no_mask():
    example = example_of(filled(30, 60, (0, 0, 60, 30)))
    encoded = WholeImageTransform(64, True)(example, np.random.default_rng(0))
    batch = ObjectCollate(size=64)([encoded])
    assert batch["sizes"].tolist() == [[32, 64]]
    assert batch["image_sizes"].tolist() == [[30, 60]]
    mean = torch.tensor([round(255 * value) for value in IMAGENET_MEAN], dtype=torch.uint8)
    assert (batch["image"][0, :, 32:] == mean[:, None, None]).all()
    assert (batch["image"][0, :, :32] == 255).all()
    masks = unpack_masks(batch["masks"][0], 64, 64).numpy()
    assert np.array_equal(masks[0], filled(64, 64, (0, 0, 64, 32)))


def test_objects_are_padded_to_the_next_multiple_of_eight():
    transform = WholeImageTransform(64, True)
    none = Example("0", SCENES[0].image, boxes=np.zeros((0, 4), np.float32))
    encoded = [transform(example, np.random.default_rng(0)) for example in (none, *SCENES)]
    counts = [len(item["boxes"]) for item in encoded]
    assert counts[0] == 0
    batch = ObjectCollate(size=64)(encoded)
    assert {name: tuple(value.shape[1:]) for name, value in batch.items()} == {
        "image": (3, 64, 64),
        "sizes": (2,),
        "image_sizes": (2,),
        "sampling_seed": (),
        "boxes": (8, 4),
        "box_labels": (8,),
        "masks": (8, 64 * 64 // 8),
    }
    assert (batch["box_labels"] > 0).sum(1).tolist() == counts
    for row, item in enumerate(encoded):
        for name in ("boxes", "box_labels"):
            assert torch.equal(batch[name][row, : counts[row]], item[name])
        assert torch.equal(batch["masks"][row, : counts[row]], item["masks"].flatten(1))
    assert ObjectCollate()(encoded[:1])["boxes"].shape == (1, 8, 4)


def test_data_without_masks_is_an_error_with_a_remedy():
    example = dataclasses.replace(SCENES[0], masks=())
    with pytest.raises(DataError, match=r"0 masks.*coco, lvis, scenes.*\(masks: false\)"):
        found(example, place_in_square(64, 64, size=64))


def test_masks_of_another_size_than_their_image_are_an_error():
    example = example_of(filled(20, 30, (1, 1, 5, 5)))
    with pytest.raises(DataError, match=r"20 x 30 pixels, and a mask of it 30 x 20"):
        find_objects(
            example, place_in_square(30, 20, size=30), image_size=(30, 20), with_masks=True
        )


@pytest.mark.parametrize("with_masks", [True, False])
def test_objects_of_an_image_of_another_size_are_an_error(with_masks: bool) -> None:
    example = example_of(filled(30, 20, (1, 1, 5, 5)), annotated_size=(60.0, 40.0))
    polygons = ([[1, 1, 5, 1, 5, 5]],)
    example = dataclasses.replace(example, masks=polygons)
    place = place_in_square(30, 20, size=30)

    def find(**changes: Any) -> Objects:
        changed = dataclasses.replace(example, **changes)
        return find_objects(changed, place, image_size=(30, 20), with_masks=with_masks)

    with pytest.raises(DataError, match=r"20 x 30 pixels, and its annotations say 40 x 60: .*"):
        find()
    with pytest.raises(DataError, match=r"say 30 x 20: .*, or remove the image's EXIF orientation"):
        find(annotated_size=(20.0, 30.0))
    for size in (None, (30.0, 20.0)):
        assert len(find(annotated_size=size).labels) == 1
    nothing = np.zeros((0, 4), np.float32)
    assert not len(find(boxes=nothing, box_labels=(), masks=()).labels)


@pytest.mark.parametrize(("size", "is_wrong"), [((40.0, 20.0), False), ((20.0, 40.0), True)])
def test_objects_are_annotated_in_the_upright_image(
    size: tuple[float, float], is_wrong: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    example = example_of(filled(40, 20, (1, 1, 5, 5)), image=file.getvalue(), annotated_size=size)
    transform = WholeImageTransform(40, False)
    if is_wrong:
        with pytest.raises(DataError, match="20 x 40 pixels, and its annotations say 40 x 20"):
            transform(example, np.random.default_rng(0))
    else:
        assert transform(example, np.random.default_rng(0))["image_sizes"].tolist() == [40, 20]


@pytest.mark.parametrize(
    ("collate", "shape"),
    [
        (ObjectCollate(multiple=32), (64, 96)),
        (ObjectCollate(), (40, 67)),
        (ObjectCollate(size=97), (97, 97)),
    ],
)
def test_images_and_masks_of_several_sizes_are_padded_at_the_right_and_below(collate, shape):
    masks = [filled(40, 51, (3, 2, 50, 40)), filled(33, 67, (60, 30, 67, 33))]
    encoded = []
    for mask in masks:
        objects = found(example_of(mask), Placement(Box(0, 0, *mask.shape), *mask.shape))
        image = torch.full((3, *mask.shape), 7, dtype=torch.uint8)
        encoded.append(
            encode_objects(image, objects, image_size=(1, 2), rng=np.random.default_rng(0))
        )
    batch = collate(encoded)
    assert batch["image"].shape[2:] == shape
    assert batch["sizes"].tolist() == [[40, 51], [33, 67]]
    for row, mask in enumerate(masks):
        height, width = mask.shape
        assert (batch["image"][row, :, :height, :width] == 7).all()
        unpacked, *padding = unpack_masks(batch["masks"][row], *shape).numpy()
        assert not np.any(padding)
        assert np.array_equal(unpacked[:height, :width], mask)
        assert unpacked.sum() == mask.sum()
