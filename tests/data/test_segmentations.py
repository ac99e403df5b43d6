"""Masks are bounded and checked: no garbage, no crash, no gigabytes."""

import copy
import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from tests.data.small_objects import example_of, filled, found
from virtex.data.images import Box
from virtex.data.masks import Placement, compressed_mask, draw_mask
from virtex.data.segmentations import BadMaskError, polygons_in, run_lengths_in
from virtex.errors import DataError

HEIGHT, WIDTH = 12, 17
WHOLE = Placement(Box(0, 0, HEIGHT, WIDTH), HEIGHT, WIDTH)
ZOOMED = Placement(Box(3, 4, 5, 6), 50, 60)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32))
def test_run_lengths_equal_pycocotools(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    packed = reference.encode(np.asfortranarray(mask, np.uint8))
    for counts in (packed["counts"], packed["counts"].decode()):
        runs = run_lengths_in({"size": [height, width], "counts": counts})
        flat = np.repeat(np.arange(len(runs)) % 2, runs)
        assert np.array_equal(flat.reshape(width, height).T, mask)
        again = run_lengths_in({"size": [height, width], "counts": runs.tolist()})
        assert np.array_equal(again, runs)


BROKEN_RUN_LENGTHS = [
    {"counts": [100]},
    {"counts": [205]},
    {"counts": []},
    {"counts": [210, -6]},
    {"counts": [2**32, 204]},
    {"counts": [10**400]},
    {"counts": [203.5, 0.5]},
    {"counts": [float("nan")]},
    {"counts": ["204"]},
    {"counts": None},
    {"counts": ""},
    {"counts": "\\5"},
    {"counts": "l"},
    {"counts": "\x00"},
    {"counts": "漢"},
    {"counts": "o" * 60 + "0"},
    {"counts": b"PP"},
    {"size": [17, 12]},
    {"size": [12, 18]},
    {"size": [12]},
    {"size": None},
    {"size": [-12, -17]},
    {"size": [1, 10**9]},
    {"size": [10**9, 10**9], "counts": [10**18]},
    {"size": [12.5, 17]},
]


@pytest.mark.parametrize("changes", BROKEN_RUN_LENGTHS)
def test_broken_run_lengths_are_an_error_and_never_garbage(changes: dict[str, Any]) -> None:
    mask = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH - 4, 4], **changes}
    with pytest.raises(BadMaskError):
        draw_mask(mask, WHOLE)
    with pytest.raises(BadMaskError):
        compressed_mask(mask, HEIGHT, WIDTH)
    example = example_of(filled(HEIGHT, WIDTH, (1, 1, 5, 5)), masks=(mask,))
    with pytest.raises(DataError, match=r"[Cc]orrect the annotations"):
        found(example, WHOLE)


SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


@pytest.mark.parametrize(
    "polygons",
    [
        [[*SQUARE[:-1], value]]
        for value in (1e300, 1e18, -1e10, float("nan"), float("inf"), 10**400, None, "5", [5])
    ]
    + [[[1, 1e8, 5, 1, 5, 5]], [[0, 0, 9, 9] * 300_000], [SQUARE[:-1]], [[]], None, 7, "1"],
)
@pytest.mark.parametrize("placement", [WHOLE, ZOOMED])
def test_polygons_that_cannot_be_drawn_in_bounded_memory_are_an_error(
    polygons: Any, placement: Placement
) -> None:
    example = example_of(filled(HEIGHT, WIDTH, (1, 1, 9, 9)), masks=(polygons,))
    with pytest.raises(DataError, match=r"Correct the annotations"):
        found(example, placement)
    with pytest.raises(BadMaskError):
        draw_mask(polygons, placement)
    with pytest.raises(BadMaskError):
        compressed_mask(polygons, HEIGHT, WIDTH)


def test_an_outline_that_grows_too_long_with_the_image_is_an_error() -> None:
    polygon = [0, 0, 100_000, 0, 100_000, 5, 0, 5]
    polygons_in([polygon])
    assert draw_mask([polygon], WHOLE)[0].all()
    with pytest.raises(BadMaskError, match=r"an outline of 2,[0-9,]+ pixels"):
        draw_mask([polygon], Placement(Box(0, 0, 12, 17), 120, 170))


COMPRESSED = reference.encode(np.asfortranarray(filled(HEIGHT, WIDTH, (2, 3, 9, 7)), np.uint8))
MASKS: list[Any] = [
    {"size": [HEIGHT, WIDTH], "counts": [27, 4, 8, 4, 8, 4, 149]},
    {"size": [HEIGHT, WIDTH], "counts": COMPRESSED["counts"].decode()},
    [SQUARE, [2, 2, 9, 3, 4, 8]],
]
WILD: list[Any] = [
    *(0, 1, -1, 2**31, 2**32 - 1, 2**63, 10**400, 0.5, 1e8, -1e8, 1e300, float("nan"), None),
    *(float("-inf"), True, "", "0", "o", "ooooooo0", "\x00", [], [0], [[]], {}, "\ud800"),
]


def mutated(mask: Any, rng: random.Random) -> Any:
    """The mask with one to three of its values replaced, removed, doubled or changed."""
    mask = copy.deepcopy(mask)
    for _ in range(rng.randint(1, 3)):
        lists = [mask] if isinstance(mask, list) else []
        lists += mask if isinstance(mask, list) else list(mask.values())
        chosen = rng.choice(lists)
        if isinstance(chosen, list) and chosen:
            place = rng.randrange(len(chosen))
            change = rng.choice(["replace", "remove", "double", "add", "move", "move"])
            if change == "replace":
                chosen[place] = copy.deepcopy(rng.choice(WILD))
            elif change == "remove":
                del chosen[place]
            elif change == "double":
                chosen.insert(place, chosen[place])
            elif isinstance(chosen[place], int | float) and isinstance(chosen[0], int | float):
                difference = rng.choice([1, -1, 2, 12, 1000, 0.25])
                chosen[place] += difference
                if change == "move":
                    chosen[0] -= difference
        elif isinstance(mask, dict) and isinstance(mask.get("counts"), str) and mask["counts"]:
            text, place = mask["counts"], rng.randrange(len(mask["counts"]))
            letter = chr(rng.choice([rng.randrange(256), rng.randrange(48, 112)]))
            mask["counts"] = text[:place] + rng.choice(["", letter, letter * 9]) + text[place + 1 :]
    return mask


@pytest.mark.parametrize("kind", range(len(MASKS)))
def test_a_mutated_mask_is_a_mask_or_an_error(kind: int) -> None:
    rng = random.Random(kind)
    whole = example_of(filled(HEIGHT, WIDTH, (1, 1, 9, 9)))
    outcomes = {"drawn": 0, "refused": 0}
    for _ in range(400):
        mask = mutated(MASKS[kind], rng)
        example = dataclasses.replace(whole, masks=(mask,))
        try:
            drawn = [found(example, placement).masks for placement in (WHOLE, ZOOMED)]
            again = [found(example, placement).masks for placement in (WHOLE, ZOOMED)]
        except DataError:
            outcomes["refused"] += 1
            continue
        outcomes["drawn"] += 1
        for one, other in zip(drawn, again, strict=True):
            assert one is not None
            assert other is not None
            assert np.array_equal(one, other)
        area = reference.area(compressed_mask(mask, HEIGHT, WIDTH))
        assert draw_mask(mask, WHOLE).sum() == area <= HEIGHT * WIDTH
    assert min(outcomes.values()) > 5
