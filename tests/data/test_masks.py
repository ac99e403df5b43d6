"""Masks drawn and packed."""

from itertools import compress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_masks

from tests.data.small_objects import SCENES, filled
from tests.real_data import real
from virtex.data.example import Example
from virtex.data.images import Box, open_image
from virtex.data.masks import (
    Placement,
    compressed_mask,
    draw_mask,
    pack_masks,
    unpack_masks,
)
from virtex.data.object_transforms import place_in_square
from virtex.data.objects import find_objects
from virtex.data.sources.coco import CocoSource
from virtex.data.sources.scenes.scenes_source import run_lengths


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
    placement = place_in_square(64, 64, size=70, zoom=1.7, down=0.4, right=0.2)
    expected = draw_mask(mask, placement)
    assert expected.any()
    assert np.array_equal(draw_mask(packed, placement), expected)
    text = {**packed, "counts": packed["counts"].decode()}
    assert np.array_equal(draw_mask(text, placement), expected)


@pytest.mark.parametrize("too_short", [[1.5, 1.5], [1.0, 1.0, 9.0, 9.0]])
def test_polygons_too_short_for_an_area_are_left_out_of_compressed_masks(too_short):
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    expected = filled(10, 14, (0, 0, 4, 4))
    for segmentation in ([too_short, square], [square, too_short], [square]):
        assert np.array_equal(coco_masks.decode(compressed_mask(segmentation, 10, 14)), expected)
        drawn = draw_mask(segmentation, Placement(Box(0, 0, 10, 14), 10, 14))
        assert np.array_equal(drawn, expected)
    nothing = compressed_mask([too_short], 10, 14)
    assert tuple(nothing["size"]) == (10, 14)
    assert not coco_masks.decode(nothing).any()


def test_a_compressed_mask_is_the_mask_whatever_its_form():
    mask = SCENES[1].masks[0]
    compressed = compressed_mask(mask, *mask["size"])
    text = {**compressed, "counts": compressed["counts"].decode()}
    expected = _drawn(mask, mask["size"])
    assert expected.any()
    for form in (compressed, text):
        again = compressed_mask(form, *mask["size"])
        assert np.array_equal(coco_masks.decode(again), expected)


def test_run_lengths_at_twice_the_size_double_each_pixel():
    mask = filled(10, 14, (3, 2, 9, 5)) | filled(10, 14, (3, 2, 5, 9))
    drawn = draw_mask(run_lengths(mask), place_in_square(10, 14, size=28))
    assert np.array_equal(drawn, mask.repeat(2, 0).repeat(2, 1))


@given(st.integers(0, 4), st.integers(1, 11), st.integers(1, 11), st.integers(0, 2**32))
def test_masks_come_out_of_their_bytes_as_they_went_in(number, height, width, seed):
    masks = np.random.default_rng(seed).random((number, height, width)) < 0.5
    packed = pack_masks(masks)
    assert packed.shape == (number, height, -(-width // 8))
    unpacked = unpack_masks(torch.from_numpy(packed).flatten(1), height, width)
    assert np.array_equal(unpacked.numpy(), masks)


def test_masks_of_real_photos_are_cocos_own():
    coco = real("data/coco_mini")
    source = CocoSource(coco, split="train2017", with_captions=False, with_instances=True)
    num_objects = num_crowds = 0
    for example in source:
        size = _size(example)
        objects = find_objects(
            example, place_in_square(*size, size=max(size)), image_size=size, with_masks=True
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
