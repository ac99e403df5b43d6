from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.sources.scenes import (
    CATEGORIES,
    ScenesSource,
    composition,
    scenes_source,
)
from virtex.data.sources.scenes.drawing import Look, render
from virtex.data.sources.scenes.kind_drawings import draw_kind
from virtex.data.sources.scenes.kinds import KINDS
from virtex.data.sources.scenes.palette import LIGHTS
from virtex.data.sources.scenes.scene_plan import plan_scene
from virtex.data.sources.scenes.scenes_source import run_lengths
from virtex.data.sources.scenes.settings import SETTINGS
from virtex.errors import ConfigError

NUM_SCENES = 400


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch):
    """Scenes that are compared have each been drawn."""
    monkeypatch.setattr(scenes_source, "_scene", scenes_source._scene.__wrapped__)


@pytest.fixture(scope="module")
def source():
    return ScenesSource(NUM_SCENES)


@pytest.fixture(scope="module")
def examples(source):
    return list(source)


def decoded(mask):
    """(H, W) of COCO's uncompressed run lengths, the slow way."""
    height, width = mask["size"]
    flat, value = [], False
    for count in mask["counts"]:
        flat += [value] * count
        value = not value
    return np.array(flat).reshape(width, height).T


def same(one, other):
    return (
        np.array_equal(one.image, other.image)
        and one.captions == other.captions
        and one.masks == other.masks
        and np.array_equal(one.boxes, other.boxes)
    )


def test_a_scene_depends_on_its_index_alone():
    np.random.seed(3)
    first = ScenesSource(50)[17]
    np.random.seed(4)
    longer = ScenesSource(5000)
    assert longer[3].image_id != first.image_id
    assert same(longer[17], first)
    assert same(longer[17 - 5000], first)


def test_a_scene_that_is_read_again_is_not_drawn_again(monkeypatch):
    monkeypatch.undo()
    example = ScenesSource(5, seed=11)[3]
    monkeypatch.setattr(scenes_source, "_draw", None)
    assert ScenesSource(8, seed=11)[3] is example
    with pytest.raises(ValueError, match="read-only"):
        example.image[0, 0] = 0


def test_splits_and_seeds_give_other_scenes():
    sources = [
        ScenesSource(4, seed=seed, split=split)
        for seed, split in ((0, "train"), (0, "val"), (0, "test"), (1, "train"))
    ]
    seen = {example.image.tobytes() for source in sources for example in source}
    assert len(seen) == 16
    assert len({example.image_id for source in sources for example in source}) == 16


def test_scenes_have_the_requested_size():
    for size in (64, 200, 512):
        example = ScenesSource(1, image_size=size)[0]
        assert example.image.shape == (size, size, 3)
        assert example.image.dtype == np.uint8
        assert example.image.std() > 10
        assert all(mask["size"] == [size, size] for mask in example.masks)


def test_another_size_shows_the_same_objects_at_the_same_positions():
    pairs = zip(ScenesSource(40, image_size=96), ScenesSource(40, image_size=192), strict=True)
    alike = [(small, large) for small, large in pairs if small.box_labels == large.box_labels]
    assert len(alike) > 35
    shifts = np.concatenate([2 * small.boxes - large.boxes for small, large in alike])
    assert np.quantile(np.abs(shifts), 0.95) <= 3
    assert sum(small.captions == large.captions for small, large in alike) > 25


def test_impossible_options_are_all_named_at_once():
    with pytest.raises(ConfigError, match=r"(?s)num_images is 0.*seed.*'dev'.*image_size is 32"):
        ScenesSource(0, seed=-1, split="dev", image_size=32)


def test_an_index_beyond_the_end_is_an_index_error(source):
    with pytest.raises(IndexError):
        source[NUM_SCENES]


def test_identity_tells_apart_what_gives_other_scenes():
    identities = [
        ScenesSource(10), ScenesSource(11), ScenesSource(10, seed=1),
        ScenesSource(10, split="val"), ScenesSource(10, image_size=64),
    ]  # fmt: skip
    assert len({tuple(source.identity().items()) for source in identities}) == 5
    assert ScenesSource(10).identity() == ScenesSource(10).identity()


def test_labels_alone_are_those_of_the_example(source, examples):
    labels = [source.labels(index) for index in range(NUM_SCENES)]
    assert labels == [example.labels for example in examples]
    assert source.labels(-1) == labels[-1]
    with pytest.raises(IndexError):
        source.labels(NUM_SCENES)


def test_labels_alone_are_those_of_the_first_plan_that_shows_something(monkeypatch):
    monkeypatch.setattr(composition, "_LEAST_AREA", 0.2)
    source = ScenesSource(8, seed=20)  # which no other test draws, and keeps
    firsts = [plan_scene(np.random.default_rng((20, 0, index, 0))) for index in range(8)]
    assert not all(composition.visible_objects(plan, size=96) for plan in firsts)
    for index in range(8):
        assert source.labels(index) == source[index].labels


def test_labels_alone_are_found_without_painting(monkeypatch):
    def never(*_, **__):
        raise AssertionError("the labels alone are cheaper")

    monkeypatch.setattr(composition, "paint", never)
    monkeypatch.setattr(scenes_source, "write_captions", never)
    assert ScenesSource(4, seed=21).labels(3)


def test_labels_are_the_kinds_of_the_boxes(examples):
    for example in examples:
        assert example.labels == tuple(sorted(set(example.box_labels)))
        assert len(example.boxes) == len(example.box_labels) == len(example.masks) > 0
        assert example.boxes.dtype == np.float32


def test_masks_fill_their_boxes_and_do_not_overlap(examples):
    for example in examples[:120]:
        masks = [decoded(mask) for mask in example.masks]
        assert np.sum(masks, axis=0).max() == 1
        for mask, (x1, y1, x2, y2) in zip(masks, example.boxes.astype(int), strict=True):
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min()) == (x1, y1)
            assert (columns.max() + 1, rows.max() + 1) == (x2, y2)
            assert 0 <= x1 < x2 <= 96
            assert 0 <= y1 < y2 <= 96


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_run_lengths_decode_to_the_mask(rows):
    mask = np.array(rows)
    assert np.array_equal(decoded(run_lengths(mask)), mask)


def test_objects_are_few_and_large_enough_to_see(examples):
    assert all(1 <= len(example.labels) <= 4 for example in examples)
    areas = [sum(mask["counts"][1::2]) / 96**2 for e in examples for mask in e.masks]
    assert min(areas) >= 0.004
    assert np.median(areas) > 0.03


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_draws_something_on_its_canvas(kind):
    look = Look(
        (200.0, 50.0, 50.0), (240.0, 240.0, 240.0), "plain", False, 0.0, LIGHTS["day"], 0.0, 0
    )
    sprite = render(partial(draw_kind, name=kind.name), kind.canvas, height=60, look=look)
    height, width = sprite.alpha.shape
    assert 30 < height <= 60
    assert 10 < width <= 60 * kind.canvas[0] / kind.canvas[1] + 1
    assert sprite.alpha.mean() > 0.15


def test_every_kind_fits_a_setting():
    placed = {name for setting in SETTINGS for name in (*setting.standing, *setting.floating)}
    assert placed == set(CATEGORIES)
    assert len(CATEGORIES) == len(set(CATEGORIES)) >= 40


def test_every_kind_occurs_and_few_kinds_make_up_most():
    counts = Counter()
    for index in range(10_000):
        plan = plan_scene(np.random.default_rng((2, index)))
        counts.update({plan.groups[spot.group].kind.name for spot in plan.objects})
    assert set(counts) == set(CATEGORIES)
    ordered = sorted(counts.values(), reverse=True)
    assert sum(ordered[:10]) > 0.35 * sum(ordered)
    assert ordered[-1] < ordered[0] / 50
