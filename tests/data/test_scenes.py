import math
from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.sources.scenes import (
    CATEGORIES,
    ScenesSource,
    composition,
    kinds_named_in,
    scenes_source,
)
from virtex.data.sources.scenes.composition import compose
from virtex.data.sources.scenes.drawing import Look, render
from virtex.data.sources.scenes.grammar import write_captions
from virtex.data.sources.scenes.kind_drawings import draw_kind
from virtex.data.sources.scenes.kinds import KINDS
from virtex.data.sources.scenes.nouns import NUMBERS, nouns_of, plural_of, with_article
from virtex.data.sources.scenes.palette import LIGHTS
from virtex.data.sources.scenes.relations import relations_between, visible_groups
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


@pytest.fixture(scope="module")
def scenes():
    """Drawn scenes with their visible groups and their captions."""
    made = []
    for index in range(NUM_SCENES):
        rng = np.random.default_rng((1, index))
        scene = compose(plan_scene(rng), size=96, rng=rng)
        if scene.objects:
            captions = write_captions(scene, number=5, rng=rng)
            made.append((scene, visible_groups(scene), captions))
    return made


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


def test_captions_name_only_kinds_of_the_scene(examples):
    for example in examples:
        kinds = {CATEGORIES[label] for label in example.labels}
        for caption in example.captions:
            assert kinds_named_in(caption) <= kinds, caption
            assert kinds_named_in(caption), caption


def test_every_kind_of_a_scene_is_mostly_named(examples):
    named = present = 0
    for example in examples:
        kinds = {CATEGORIES[label] for label in example.labels}
        present += len(kinds)
        named += len(set.union(*map(kinds_named_in, example.captions)) & kinds)
    assert named / present > 0.93


def test_captions_of_an_image_differ_and_read_as_sentences(examples):
    for example in examples:
        assert len(set(example.captions)) == 5
        for caption in example.captions:
            assert caption[0].isupper()
            assert caption.endswith(".")
            assert "  " not in caption
            assert " ," not in caption
            assert len(caption.split()) <= 30


def test_captions_begin_in_many_ways(examples):
    starts = Counter(" ".join(c.split()[:2]) for e in examples for c in e.captions)
    assert len(starts) > 150
    assert starts.most_common(1)[0][1] < 0.1 * 5 * NUM_SCENES


def test_articles_fit_the_words_after_them(examples):
    for caption in (caption for example in examples for caption in example.captions):
        words = caption.lower().strip(".").split()
        for article, word in pairwise(words):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou"), caption


def test_number_words_and_verbs_agree_with_the_count(scenes):
    singular = {"stands", "sits", "lies", "flies", "floats", "swims", "sails", "grows"}
    for scene, groups, captions in scenes:
        counts = {seen.group.kind.name: seen.count for seen in groups}
        for caption in captions:
            words = caption.lower().strip(".").replace(",", "").split()
            if words[1] in singular:
                assert words[0][-1] != "s", caption
            for number in range(2, 9):
                if len(groups) == 1 and NUMBERS[number] in words:
                    assert set(counts.values()) == {number}, caption
        assert sum(counts.values()) == len(scene.objects)


def test_colors_in_captions_are_those_of_the_groups(scenes):
    colors = {color for kind in KINDS for color in kind.colors}
    for _, groups, captions in scenes:
        drawn = {seen.group.color for seen in groups}
        for caption in captions:
            said = colors & set(caption.lower().strip(".").replace(",", "").split())
            assert said <= drawn, caption


def test_left_and_right_agree_with_the_boxes(scenes):
    checked = 0
    for _, groups, captions in scenes:
        nouns = {noun: seen for seen in groups for noun in nouns_of(seen.group.kind)}
        for caption in captions:
            for side in ("left", "right"):
                before, middle, after = caption.lower().partition(f"{side} of ")
                first, second = _last_named(before, nouns), _first_named(after, nouns)
                if not middle or not first or not second:
                    continue
                sign = -1 if side == "left" else 1
                assert sign * (_middle(first) - _middle(second)) > 0, caption
                checked += 1
    assert checked > 40


def _middle(seen):
    return (seen.box[0] + seen.box[2]) / 2


def _named_at(text, nouns):
    """(position, group) of each noun, a longer noun hiding those within it."""
    found = []
    for noun in sorted(nouns, key=len, reverse=True):
        at = text.find(noun)
        if at >= 0:
            found.append((at, nouns[noun]))
            text = text.replace(noun, "#" * len(noun))
    return sorted(found, key=lambda pair: pair[0])


def _last_named(text, nouns):
    found = _named_at(text, nouns)
    return found[-1][1] if found else None


def _first_named(text, nouns):
    found = _named_at(text, nouns)
    return found[0][1] if found else None


def test_relations_agree_with_the_boxes(scenes):
    words = Counter()
    for _, groups, _ in scenes:
        for relation in relations_between(groups):
            a, b = relation.first.box, relation.second.box
            holds = {
                "left": a[0] < b[0] and a[2] < b[2],
                "right": a[0] > b[0] and a[2] > b[2],
                "above": a[1] < b[1] and a[3] < b[3],
                "below": a[1] > b[1] and a[3] > b[3],
                "beside": a[2] < b[2] or a[0] > b[0],
                "front": relation.second.objects[0].visible < 1,
                "behind": relation.first.objects[0].visible < 1,
            }
            assert holds[relation.word]
            words[relation.word] += 1
    assert all(words[word] > 10 for word in ("left", "right", "above", "below", "front", "beside"))
    assert words["left"] == words["right"]
    assert words["front"] == words["behind"]


def test_night_captions_belong_to_dark_scenes(scenes):
    bright = {"day": [], "night": []}
    for scene, _, captions in scenes:
        light = scene.plan.light
        assert light == "night" or not any("night" in caption.split() for caption in captions)
        if light in bright and scene.plan.setting.name == "meadow":
            bright[light].append(scene.pixels.mean())
    assert max(bright["night"]) < min(bright["day"])


def test_the_longest_noun_counts():
    assert kinds_named_in("Two teddy bears under a street lamp.") == {"teddy bear", "street lamp"}
    assert kinds_named_in("a hot air balloon and a BALLOON") == {"hot air balloon", "balloon"}
    assert kinds_named_in("A couch, sheep and snowmen.") == {"sofa", "sheep", "snowman"}
    assert kinds_named_in("an orange sunset by the lighthouses") == {"lighthouse"}


def test_no_two_kinds_share_a_noun():
    nouns = Counter(noun for kind in KINDS for noun in nouns_of(kind))
    assert max(nouns.values()) == 1


def test_plurals_and_articles():
    kind_of = {kind.name: kind for kind in KINDS}
    plurals = {"bus": "buses", "cactus": "cacti", "strawberry": "strawberries", "fish": "fish",
               "bench": "benches", "person": "people", "dog": "dogs"}  # fmt: skip
    for singular, plural in plurals.items():
        assert plural_of(singular, kind_of[singular]) == plural
    assert with_article("orange cat") == "an orange cat"
    assert with_article("red owl") == "a red owl"


def test_objects_stand_where_they_belong(scenes):
    """Boats float below the horizon, the sun is above what stands on the ground."""
    for scene, groups, _ in scenes:
        setting = scene.plan.setting
        for seen in groups:
            if seen.group.kind.name in ("sailboat", "ship"):
                assert setting.name == "sea"
                assert seen.box[3] > setting.horizon
            if seen.group.kind.name in ("sun", "moon") and setting.standing:
                assert seen.box[1] < 0.4
            assert all(math.isfinite(value) for value in seen.box)
