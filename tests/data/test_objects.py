"""Image, boxes and masks changed together."""

import dataclasses
import pickle
from itertools import compress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from virtex.data.example import Example
from virtex.data.images import Box, open_image
from virtex.data.objects import (
    Objects,
    ObjectTrainTransform,
    ObjectValidationTransform,
    Placement,
    box_around,
    collate_objects,
    draw_mask,
    encode_objects,
    find_objects,
    flip_objects,
    pack_masks,
    place,
    unpack_masks,
)
from virtex.data.sources.coco import CocoSource
from virtex.data.sources.scenes import ScenesSource
from virtex.data.sources.scenes.source import run_lengths
from virtex.data.transforms import IMAGENET_MEAN, ImageConfig
from virtex.errors import DataError

COCO = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "coco_mini"
PLAIN = {"flip_prob": 0.0, "jitter_prob": 0.0}
SCENES = ScenesSource(12, image_size=64)
LENGTHS = st.integers(1, 300)


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


def masks_in(encoded: dict, size: int) -> np.ndarray:
    return unpack_masks(encoded["masks"], size, size).numpy().astype(bool)


@given(LENGTHS, LENGTHS, st.integers(8, 200), st.floats(0.3, 3), st.floats(0, 0.999))
def test_an_image_keeps_its_shape_and_stays_within_the_input(height, width, size, zoom, share):
    (top, left, crop_height, crop_width), out_height, out_width = place(
        height, width, size=size, zoom=zoom, down=share, right=share
    )
    assert 0 <= top <= height - crop_height
    assert 0 <= left <= width - crop_width
    assert max(out_height, out_width) <= size
    scale = zoom * size / max(height, width)
    tolerance = 0.5 + 0.5 * scale
    assert abs(out_height - crop_height * scale) <= tolerance or 1 in (crop_height, out_height)
    assert abs(out_width - crop_width * scale) <= tolerance or 1 in (crop_width, out_width)


def test_at_zoom_1_the_longer_side_just_fits():
    assert place(480, 640, size=224) == Placement(Box(0, 0, 480, 640), 168, 224)
    assert place(640, 480, size=224) == Placement(Box(0, 0, 640, 480), 224, 168)


@settings(max_examples=60)
@given(st.integers(0, 11), st.floats(0.5, 2.5), st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_masks_bounding_box_stays_the_box(index, zoom, down, right):
    placement = place(64, 64, size=64, zoom=zoom, down=down, right=right)
    objects = found(SCENES[index], placement)
    for box, mask in zip(objects.boxes, objects.masks, strict=True):
        beyond = (box_around(mask) - box) * [-1, -1, 1, 1]
        assert beyond.max() <= 0.5
        if zoom >= 1:  # below, a part one pixel thin may fall between the pixels that are kept
            assert beyond.min() >= -0.5


def test_at_a_whole_zoom_boxes_and_masks_agree_to_the_pixel():
    for index in range(len(SCENES)):
        example = SCENES[index]
        objects = found(example, place(64, 64, size=128))
        assert np.array_equal(objects.boxes, 2 * example.boxes)
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            assert np.array_equal(box_around(mask), box)


@pytest.mark.parametrize("seed", range(12))
def test_masks_lie_where_the_image_shows_them(seed):
    example = example_of(filled(60, 90, (20, 5, 71, 44)))
    transform = ObjectTrainTransform(ImageConfig(size=80, jitter_prob=0.0), (0.6, 2.0), True)
    encoded = transform(example, np.random.default_rng(seed))
    height, width = encoded["sizes"].tolist()
    seen = encoded["image"][0, :height, :width].numpy() >= 128
    (mask,) = masks_in(encoded, 80)
    (box,) = encoded["boxes"].numpy()
    assert np.count_nonzero(seen != mask[:height, :width]) <= 0.02 * np.count_nonzero(seen)
    assert np.abs(box_around(seen) - box).max() <= 1


def test_a_flip_moves_all_alike_and_twice_is_the_identity():
    objects = found(SCENES[0], place(64, 64, size=64))
    mirrored = flip_objects(objects, 64)
    assert np.array_equal(mirrored.masks, objects.masks[:, :, ::-1])
    for box, mask in zip(mirrored.boxes, mirrored.masks, strict=True):
        assert np.abs(box_around(mask) - box).max() <= 1.5
    for back, before in zip(flip_objects(mirrored, 64), objects, strict=True):
        assert np.array_equal(back, before)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 35)), min_size=3, max_size=6))
def test_a_cropped_polygon_is_the_crop_of_the_polygon_but_for_its_edge(points):
    polygon = [float(value) for point in points for value in point]
    whole = draw_mask([polygon], Placement(Box(0, 0, 32, 40), 32, 40))
    crop = draw_mask([polygon], Placement(Box(6, 9, 20, 25), 20, 25))
    around = np.lib.stride_tricks.sliding_window_view(whole, (5, 5))[4:24, 7:32]
    is_edge = around.any((2, 3)) & ~around.all((2, 3))
    assert not ((crop != whole[6:26, 9:34]) & ~is_edge).any()


def test_parts_of_an_object_are_drawn_together():
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    shifted = [value + 5 for value in square]
    mask = draw_mask([square, shifted, [1, 1, 9, 9]], Placement(Box(0, 0, 10, 10), 20, 20))
    expected = filled(20, 20, (0, 0, 8, 8)) | filled(20, 20, (10, 10, 18, 18))
    assert np.array_equal(mask, expected)


def test_run_lengths_are_the_same_compressed_or_not():
    mask = SCENES[1].masks[0]
    packed = coco_masks.frPyObjects(mask, *mask["size"])
    placement = place(64, 64, size=70, zoom=1.7, down=0.4, right=0.2)
    expected = draw_mask(mask, placement)
    assert expected.any()
    assert np.array_equal(draw_mask(packed, placement), expected)
    text = {**packed, "counts": packed["counts"].decode()}
    assert np.array_equal(draw_mask(text, placement), expected)


def test_run_lengths_at_twice_the_size_double_each_pixel():
    mask = filled(10, 14, (3, 2, 9, 5)) | filled(10, 14, (3, 2, 5, 9))
    drawn = draw_mask(run_lengths(mask), place(10, 14, size=28))
    assert np.array_equal(drawn, mask.repeat(2, 0).repeat(2, 1))


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
            example, place(20, 20, size=20), image_size=(20, 20), with_masks=with_masks
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
    assert len(found(example_of(thin), place(40, 40, size=40)).labels) == 1
    assert not len(found(example_of(thin), place(40, 40, size=10)).labels)


@given(st.integers(0, 4), st.integers(1, 11), st.integers(1, 11), st.integers(0, 2**32))
def test_masks_come_out_of_their_bytes_as_they_went_in(number, height, width, seed):
    masks = np.random.default_rng(seed).random((number, height, width)) < 0.5
    packed = pack_masks(masks)
    assert packed.shape == (number, -(-height * width // 8))
    unpacked = unpack_masks(torch.from_numpy(packed), height, width)
    assert np.array_equal(unpacked.numpy(), masks)


def test_padding_has_the_mean_colour_and_no_mask():
    example = example_of(filled(30, 60, (0, 0, 60, 30)))
    encoded = ObjectValidationTransform(ImageConfig(size=64), True)(
        example, np.random.default_rng(0)
    )
    assert encoded["sizes"].tolist() == [32, 64]
    mean = torch.tensor([round(255 * value) for value in IMAGENET_MEAN], dtype=torch.uint8)
    assert (encoded["image"][:, 32:] == mean[:, None, None]).all()
    assert (encoded["image"][:, :32] == 255).all()
    assert np.array_equal(masks_in(encoded, 64)[0], filled(64, 64, (0, 0, 64, 32)))


def test_a_batch_is_padded_to_the_image_with_most_objects():
    transform = ObjectValidationTransform(ImageConfig(size=64), True)
    none = Example("0", SCENES[0].image, boxes=np.zeros((0, 4), np.float32))
    encoded = [transform(example, np.random.default_rng(0)) for example in (none, *SCENES)]
    counts = [len(item["boxes"]) for item in encoded]
    assert counts[0] == 0
    batch = collate_objects(encoded)
    assert {name: tuple(value.shape[1:]) for name, value in batch.items()} == {
        "image": (3, 64, 64),
        "sizes": (2,),
        "boxes": (max(counts), 4),
        "box_labels": (max(counts),),
        "masks": (max(counts), 64 * 64 // 8),
    }
    assert (batch["box_labels"] > 0).sum(1).tolist() == counts
    for row, item in enumerate(encoded):
        for name in ("boxes", "box_labels", "masks"):
            assert torch.equal(batch[name][row, : counts[row]], item[name])
    assert collate_objects(encoded[:1])["boxes"].shape == (1, 1, 4)


def test_the_same_generator_gives_the_same_tensors_in_another_process():
    transform = ObjectTrainTransform(ImageConfig(size=64), (0.5, 2.0), True)
    copy = pickle.loads(pickle.dumps(transform))
    one, two = (encode(SCENES[2], np.random.default_rng(5)) for encode in (transform, copy))
    other = transform(SCENES[2], np.random.default_rng(6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["image"], other["image"])


def test_boxes_alone_need_no_masks():
    example = dataclasses.replace(SCENES[0], masks=())
    transform = ObjectTrainTransform(ImageConfig(size=64, **PLAIN), (1.0, 1.0), False)
    encoded = transform(example, np.random.default_rng(0))
    assert "masks" not in encoded
    assert np.array_equal(encoded["boxes"], example.boxes)
    assert "masks" not in collate_objects([encoded])


def test_data_without_masks_is_told_what_to_do():
    example = dataclasses.replace(SCENES[0], masks=())
    with pytest.raises(DataError, match=r"0 masks.*--task.masks false"):
        found(example, place(64, 64, size=64))


def test_masks_of_another_size_than_their_image_are_an_error():
    example = example_of(filled(20, 30, (1, 1, 5, 5)))
    with pytest.raises(DataError, match=r"is 20 x 30 pixels, and a mask of it 30 x 20"):
        find_objects(example, place(30, 20, size=30), image_size=(30, 20), with_masks=True)


def test_masks_of_real_photos_are_cocos_own():
    if not COCO.is_dir():
        pytest.skip("needs the photos and instances of coco_mini")
    source = CocoSource(COCO, split="train2017", with_captions=False, with_instances=True)
    num_objects = num_crowds = 0
    for example in source:
        size = _size(example)
        objects = find_objects(
            example, place(*size, size=max(size)), image_size=size, with_masks=True
        )
        crowd = np.array(example.crowd or (False,) * len(example.box_labels), bool)
        expected = [_drawn(mask, size) for mask in compress(example.masks, ~crowd)]
        kept = [mask.any() for mask in expected]
        assert np.array_equal(objects.masks, [mask for mask in expected if mask.any()])
        assert np.abs(objects.boxes - example.boxes[~crowd][kept]).max() <= 1
        num_objects, num_crowds = num_objects + len(objects.labels), num_crowds + crowd.sum()
    assert num_objects > 100
    assert num_crowds


def _size(example: Example) -> tuple[int, int]:
    file = open_image(example.image)
    return file.height, file.width


def _drawn(segmentation, size: tuple[int, int]) -> np.ndarray:
    """As pycocotools' annToMask."""
    if isinstance(segmentation, list):
        parts = coco_masks.frPyObjects(segmentation, *size)
        return coco_masks.decode(coco_masks.merge(parts)).astype(bool)
    return coco_masks.decode(coco_masks.frPyObjects(segmentation, *size)).astype(bool)


def test_masks_are_padded_with_their_image():
    objects = found(SCENES[3], place(64, 64, size=32))
    encoded = encode_objects(torch.zeros(3, 32, 32, dtype=torch.uint8), objects, size=33)
    masks = masks_in(encoded, 33)
    assert np.array_equal(masks[:, :32, :32], objects.masks)
    assert not masks[:, 32:].any()
    assert not masks[:, :, 32:].any()
