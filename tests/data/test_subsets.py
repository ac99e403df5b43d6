from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sources.layouts import ANY_TEXT
from virtex.data.example import Example, Source
from virtex.data.subsets import FewerCaptions, held_out, random_share, share_of_each_class


class Numbers(Source):
    """Examples named by their number, with three captions each."""

    categories = ("one",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        index = range(self.size)[index]
        return Example(str(index), b"", tuple(f"{index} {which}" for which in "abc"))

    def identity(self) -> dict[str, str | int]:
        return {"source": "numbers"}


def ids(source: Source) -> list[str]:
    return [example.image_id for example in source]


@given(st.integers(1, 200), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 5))
def test_a_smaller_share_is_part_of_every_larger_one(
    size: int, first: float, second: float, seed: int
) -> None:
    small, large = (
        ids(random_share(Numbers(size), share, seed=seed)) for share in sorted((first, second))
    )
    assert set(small) <= set(large)
    assert len(small) == max(1, round(min(first, second) * size))
    assert small == sorted(small, key=int)


class Classes(Numbers):
    """As Numbers, each example in one class: a tenth of them in class 1, the others in class 0."""

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        example = super().__getitem__(index)
        return replace(example, labels=(int(index % 10 == 0),))


@pytest.mark.parametrize(("share", "sizes"), [(0.5, (90, 10)), (0.2, (36, 4)), (0.01, (2, 1))])
def test_a_share_of_each_class_keeps_their_proportions(
    share: float, sizes: tuple[int, int]
) -> None:
    subset = share_of_each_class(Classes(200), share, seed=0)
    labels = [example.labels[0] for example in subset]
    assert (labels.count(0), labels.count(1)) == sizes
    assert ids(subset) == sorted(ids(subset), key=int)
    whole = share_of_each_class(Classes(200), min(1, 2 * share), seed=0)
    assert set(ids(subset)) <= set(ids(whole))


def test_captions_alone_are_those_of_the_example() -> None:
    source = random_share(FewerCaptions(Numbers(10), 2), 0.5, seed=0)
    assert [source.captions(i) for i in range(5)] == [example.captions for example in source]


def test_another_seed_gives_another_share() -> None:
    shares = [tuple(ids(random_share(Numbers(100), 0.1, seed=seed))) for seed in range(3)]
    assert len(set(shares)) == 3


def test_fewer_captions_are_the_first_ones() -> None:
    source = FewerCaptions(Numbers(4), 2)
    assert source[3].captions == ("3 a", "3 b")
    assert (len(source), source.categories) == (4, ("one",))
    assert source.identity()["captions_per_image"] == 2
    assert FewerCaptions(Numbers(4), 9)[0].captions == ("0 a", "0 b", "0 c")


NAMES = st.lists(ANY_TEXT, unique=True)


@given(NAMES, NAMES, st.floats(0, 1))
def test_an_image_keeps_its_side_when_others_are_added(
    names: list[str], others: list[str], share: float
) -> None:
    before = held_out(names, share, seed=0)
    assert (held_out([*names, *others], share, seed=0)[: len(names)] == before).all()


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_share_held_out_is_near_the_one_asked_for(share: float) -> None:
    names = [f"{number:06d}.jpg" for number in range(20_000)]
    chosen = [held_out(names, share, seed=seed) for seed in (0, 1)]
    assert np.mean(chosen, axis=1) == pytest.approx([share, share], abs=0.01)
    both = (chosen[0] & chosen[1]).mean()
    assert both == pytest.approx(share * share, abs=0.01)
