"""Fingerprints: equal for equal data wherever they lie, different for any other annotation."""

from dataclasses import replace

import numpy as np
import pytest

from virtex.data.example import Example, Source, Subset
from virtex.data.fingerprint import differences, fingerprint
from virtex.data.source_options import Needs
from virtex.data.sources.scenes import ScenesSource
from virtex.data.subsets import FewerCaptions

ALL = Needs(captions=True, objects=True, labels=True, masks=True)


class Listed(Source):
    """Examples as given, at a path that is no part of them."""

    def __init__(
        self,
        examples: list[Example],
        *,
        root: str = "/a",
        classes: tuple[str, ...] = ("cat", "dog"),
    ) -> None:
        self.examples, self.root, self.categories = examples, root, classes

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def identity(self) -> dict[str, str | int]:
        return {"source": "coco", "root": self.root}


def example(name: str) -> Example:
    return Example(
        name,
        b"",
        captions=("a cat", "a dog"),
        labels=(0, 1),
        boxes=np.array([[0, 0, 4, 4], [1, 1, 5, 5]], np.float32),
        box_labels=(0, 1),
        masks=([[0, 0, 4, 0, 4, 4]], [[1, 1, 5, 1, 5, 5]]),
        crowd=(False, False),
    )


EXAMPLES = [example("1"), example("2")]


def test_the_same_data_elsewhere_have_the_same_fingerprint() -> None:
    before = fingerprint(Listed(EXAMPLES), ALL)
    assert fingerprint(Listed([example("1"), example("2")], root="/b"), ALL) == before
    assert (before["images"], before["captions"]) == (2, 4)
    assert differences(before, before) == []


def test_runs_from_before_sizes_were_read_know_their_data() -> None:
    sized = [replace(one, annotated_size=(6, 8)) for one in EXAMPLES]
    assert fingerprint(Listed(sized), ALL) == fingerprint(Listed(EXAMPLES), ALL)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_id": "3"}, "image ids: other ones"),
        ({"captions": ("a cat",)}, "captions: 4 before, 3 now"),
        ({"captions": ("a cat", "a cow")}, "captions: other ones, as many (4)"),
        ({"captions": ("a dog", "a cat")}, "captions: other ones, as many (4)"),
        ({"labels": (0,)}, "labels: 4 before, 3 now"),
        ({"box_labels": (1, 1)}, "objects: other ones, as many (4)"),
        ({"boxes": np.ones((2, 4), np.float32)}, "objects: other ones, as many (4)"),
        ({"crowd": (True, False)}, "objects: other ones, as many (4)"),
        ({"masks": ([[0, 0, 4, 0, 4, 3]], [])}, "objects: other ones, as many (4)"),
    ],
)
def test_any_other_annotation_is_noticed(changes: dict[str, object], expected: str) -> None:
    changed = [EXAMPLES[0], replace(EXAMPLES[1], **changes)]  # type: ignore[arg-type]
    before, now = (fingerprint(Listed(examples), ALL) for examples in (EXAMPLES, changed))
    assert differences(before, now) == [expected]


def test_images_in_another_order_are_other_data() -> None:
    before, now = (fingerprint(Listed(list(x)), Needs()) for x in (EXAMPLES, EXAMPLES[::-1]))
    assert differences(before, now) == ["image ids: other ones"]


def test_a_caption_that_moves_to_the_next_image_is_noticed() -> None:
    first, second = EXAMPLES
    moved = [
        replace(first, captions=("a cat",)),
        replace(second, captions=("a dog", "a cat", "a dog")),
    ]
    before, now = (fingerprint(Listed(x), Needs(captions=True)) for x in (EXAMPLES, moved))
    assert differences(before, now) == ["captions: other ones, as many (4)"]


def test_what_a_task_does_not_need_may_change() -> None:
    changed = [
        replace(one, captions=("new",), labels=(), boxes=None, box_labels=()) for one in EXAMPLES
    ]
    before, now = (fingerprint(Listed(examples), Needs()) for examples in (EXAMPLES, changed))
    assert before == now


def test_other_names_of_classes_are_other_data() -> None:
    before, now = (
        fingerprint(Listed(EXAMPLES, classes=names), ALL) for names in (("a", "b"), ("a", "c"))
    )
    assert differences(before, now) == ["classes: other ones, as many (2)"]


def test_parts_of_drawn_scenes_differ_without_drawing_them() -> None:
    scenes = ScenesSource(1_000_000)
    sources = [
        scenes,
        ScenesSource(1_000_000, seed=1),
        ScenesSource(1_000_000, image_size=64),
        FewerCaptions(scenes, 2),
        Subset(scenes, range(1, 1_000_000)),
        Subset(scenes, range(999_999)),
    ]
    prints = [str(fingerprint(source, ALL)) for source in sources]
    assert len(set(prints)) == len(prints)
    assert differences(fingerprint(scenes, ALL), fingerprint(Listed(EXAMPLES), ALL))
