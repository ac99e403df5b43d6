import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.sources.layouts import ANY_TEXT
from virtex.data.packed import PackedLists, PackedStrings

LISTS = st.lists(st.lists(ANY_TEXT, max_size=4), max_size=6)


@given(LISTS)
def test_packed_lists_give_back_what_was_packed(lists: list[list[str]]) -> None:
    assert list(PackedLists(lists)) == [tuple(strings) for strings in lists]


@given(LISTS)
def test_packed_lists_survive_being_pickled_and_written_as_arrays(lists: list[list[str]]) -> None:
    packed = PackedLists(lists)
    assert list(pickle.loads(pickle.dumps(packed))) == list(packed)
    assert list(PackedLists.from_arrays(packed.arrays())) == list(packed)


def test_packed_strings_index_as_lists_do() -> None:
    packed = PackedStrings(["a", "", "äß"])
    assert (packed[-1], packed[np.int64(0)], len(packed)) == ("äß", "a", 3)
    with pytest.raises(IndexError):
        packed[3]


def test_pickled_strings_are_a_buffer_hardly_larger_than_their_letters() -> None:
    packed = PackedStrings(f"{number:06d}" for number in range(100_000))
    assert len(pickle.dumps(packed)) < 100_000 * (6 + 8) + 1000
