"""How large a detector sees an image, and its objects with it."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from tests.data.small_objects import SCENES, example_of, filled, found, masks_in
from virtex.data.images import Box
from virtex.data.masks import Placement, box_around
from virtex.data.object_transforms import (
    ShorterSideTransform,
    ZoomTransform,
    place_by_shorter_side,
    place_in_square,
)
from virtex.data.objects import ObjectCollate
from virtex.data.transforms import ImageConfig

PLAIN = {"flip_prob": 0.0, "jitter_prob": 0.0}
LENGTHS = st.integers(1, 300)


@given(LENGTHS, LENGTHS, st.integers(8, 200), st.floats(0.3, 3), st.floats(0, 0.999))
def test_an_image_keeps_its_shape_and_stays_within_the_input(height, width, size, zoom, share):
    (top, left, crop_height, crop_width), out_height, out_width = place_in_square(
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
    assert place_in_square(480, 640, size=224) == Placement(Box(0, 0, 480, 640), 168, 224)
    assert place_in_square(640, 480, size=224) == Placement(Box(0, 0, 640, 480), 224, 168)


@settings(max_examples=60)
@given(st.integers(0, 11), st.floats(0.5, 2.5), st.floats(0, 0.999), st.floats(0, 0.999))
def test_a_masks_bounding_box_stays_the_box(index, zoom, down, right):
    placement = place_in_square(64, 64, size=64, zoom=zoom, down=down, right=right)
    objects = found(SCENES[index], placement)
    for box, mask in zip(objects.boxes, objects.masks, strict=True):
        beyond = (box_around(mask) - box) * [-1, -1, 1, 1]
        assert beyond.max() <= 0.5
        if zoom >= 1:  # below, a part one pixel thin may fall between the pixels that are kept
            assert beyond.min() >= -0.5


def test_at_a_whole_zoom_boxes_and_masks_agree_to_the_pixel():
    for index in range(len(SCENES)):
        example = SCENES[index]
        objects = found(example, place_in_square(64, 64, size=128))
        assert np.array_equal(objects.boxes, 2 * example.boxes)
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            assert np.array_equal(box_around(mask), box)


@pytest.mark.parametrize("seed", range(12))
def test_masks_lie_where_the_image_shows_them(seed):
    example = example_of(filled(60, 90, (20, 5, 71, 44)))
    zoom = ZoomTransform(ImageConfig(size=80, jitter_prob=0.0), (0.6, 2.0), True)
    shorter_side = ShorterSideTransform((40, 77, 96), 131, 0.5, True)
    for transform in (zoom, shorter_side):
        encoded = transform(example, np.random.default_rng(seed))
        seen = encoded["image"][0].numpy() >= 128
        (mask,) = masks_in(encoded)
        (box,) = encoded["boxes"].numpy()
        assert np.count_nonzero(seen != mask) <= 0.02 * np.count_nonzero(seen)
        assert np.abs(box_around(seen) - box).max() <= 1


def test_the_same_generator_gives_the_same_tensors_in_another_process():
    transform = ZoomTransform(ImageConfig(size=64), (0.5, 2.0), True)
    copy = pickle.loads(pickle.dumps(transform))
    one, two = (encode(SCENES[2], np.random.default_rng(5)) for encode in (transform, copy))
    other = transform(SCENES[2], np.random.default_rng(6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["image"], other["image"])


def test_boxes_alone_need_no_masks():
    example = dataclasses.replace(SCENES[0], masks=())
    transform = ZoomTransform(ImageConfig(size=64, **PLAIN), (1.0, 1.0), False)
    encoded = transform(example, np.random.default_rng(0))
    assert "masks" not in encoded
    assert np.array_equal(encoded["boxes"], example.boxes)
    assert "masks" not in ObjectCollate()([encoded])


@given(LENGTHS, LENGTHS, st.integers(1, 200), st.integers(0, 200))
def test_the_shorter_side_is_resized_as_torchvisions_detectors_do(height, width, size, longer):
    max_size = size + longer
    source, out_height, out_width = place_by_shorter_side(
        height, width, size=size, max_size=max_size
    )
    assert source == Box(0, 0, height, width)
    assert max(out_height, out_width) <= max_size
    if max(height, width) * size <= max_size * min(height, width):
        assert min(out_height, out_width) == size
    theirs = GeneralizedRCNNTransform(size, max_size, [0.0], [1.0])
    if min(out_height, out_width) > 1:  # torchvision rounds down, and has no image of no pixels
        resized, _ = theirs.resize(torch.zeros(1, height, width), None)
        assert abs(resized.shape[1] - out_height) <= 1
        assert abs(resized.shape[2] - out_width) <= 1


def test_a_photo_of_640_by_480_is_1067_by_800_and_a_panorama_stops_at_1333():
    assert place_by_shorter_side(480, 640, size=800, max_size=1333)[1:] == (800, 1067)
    assert place_by_shorter_side(300, 1000, size=800, max_size=1333)[1:] == (400, 1333)


def test_half_a_pixel_counts_as_one():
    placement = place_by_shorter_side(200, 331, size=300, max_size=1000)
    assert (placement.height, placement.width) == (300, 497)  # of 496.5


def test_each_size_and_both_directions_are_drawn():
    transform = ShorterSideTransform((32, 48, 64), 100, 0.5, True)
    seen = set()
    for seed in range(40):
        encoded = transform(SCENES[0], np.random.default_rng(seed))
        flipped = transform(SCENES[0], np.random.default_rng(seed))["image"].flip(2)
        side = encoded["image"].shape[1]
        plain = ShorterSideTransform((side,), 100, 0.0, True)(SCENES[0], np.random.default_rng(0))
        assert encoded["image_sizes"].tolist() == [64, 64]
        is_flipped = torch.equal(flipped, plain["image"])
        assert is_flipped or torch.equal(encoded["image"], plain["image"])
        seen.add((side, is_flipped))
    assert len(seen) == 6


@settings(max_examples=40)
@given(st.integers(0, 11), st.integers(24, 130), st.integers(0, 60), st.booleans())
def test_boxes_and_masks_stay_together_at_every_size_and_in_both_directions(
    index, size, longer, is_flipped
):
    transform = ShorterSideTransform((size,), size + longer, float(is_flipped), True)
    encoded = transform(SCENES[index], np.random.default_rng(0))
    for box, mask in zip(encoded["boxes"].numpy(), masks_in(encoded), strict=True):
        beyond = (box_around(mask) - box) * [-1, -1, 1, 1]
        assert beyond.max() <= 0.5
        if size >= 64:  # below, a part one pixel thin may fall between the pixels that are kept
            assert beyond.min() >= -0.5
