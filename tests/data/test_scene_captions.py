"""Captions of drawn scenes say what is in them, and where."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tests.data.test_scenes import NUM_SCENES
from virtex.data.sources.scenes import (
    CATEGORIES,
    ScenesSource,
    kinds_named_in,
)
from virtex.data.sources.scenes.composition import compose
from virtex.data.sources.scenes.grammar import write_captions
from virtex.data.sources.scenes.kinds import KINDS
from virtex.data.sources.scenes.nouns import NUMBERS, nouns_of, plural_of, with_article
from virtex.data.sources.scenes.relations import relations_between, visible_groups
from virtex.data.sources.scenes.scene_plan import plan_scene


@pytest.fixture(scope="module")
def examples():
    return list(ScenesSource(NUM_SCENES))


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
