"""Equal captions and images, against slow twins."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data_check.duplicates import copies, shared_captions
from virtex.data_check.split_check import sample


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=8))
def test_captions_count_the_images_that_share_them(lists: list[list[int]]) -> None:
    hashes = np.asarray([one for texts in lists for one in texts], np.int64)
    images = np.repeat(np.arange(len(lists), dtype=np.int32), [len(texts) for texts in lists])
    holders = defaultdict(set)
    for one, image in zip(hashes.tolist(), images.tolist(), strict=True):
        holders[one].add(image)
    shared = shared_captions(hashes, images, most=3)
    assert shared.num_images.tolist() == [len(holders[one]) for one in hashes.tolist()]
    assert shared.num_different == len(holders)
    most = sorted((len(one) for one in holders.values()), reverse=True)[:3]
    assert [count for count, _ in shared.most_frequent] == [count for count in most if count > 1]
    assert all(len(holders[int(hashes[at])]) == count for count, at in shared.most_frequent)


def test_a_copy_is_every_image_but_the_first() -> None:
    assert copies(np.asarray([4, 2, 4, 3, 2, 4])).tolist() == [2, 4, 5]


def test_a_sample_is_chosen_by_the_hashes_of_ids() -> None:
    ids = np.random.default_rng(0).permutation(100)
    assert set(ids[sample(ids, size=10)].tolist()) == set(range(10))
    assert sample(ids, size=100).tolist() == list(range(100))
