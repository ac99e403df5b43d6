"""Matching and sampling of boxes."""

import pytest
import torch

from virtex.models.region_targets import (
    KEYS,
    Matches,
    Targets,
    match,
    random_keys,
    sample,
)

NUM_BOXES = 2000


def matches_of(num_positive: int, num_negative: int) -> Matches:
    """Matches (1, NUM_BOXES) of which the first are positive, the next negative."""
    places = torch.arange(NUM_BOXES)[None]
    is_positive = places < num_positive
    return Matches(places, is_positive, ~is_positive & (places < num_positive + num_negative))


def keys_of(*seeds: int, stream: int = 0) -> torch.Tensor:
    return random_keys(torch.tensor(seeds), torch.arange(NUM_BOXES), stream=stream)


@pytest.mark.parametrize(
    ("present", "sampled"),
    [((500, 900), (25, 75)), ((3, 900), (3, 97)), ((500, 10), (25, 10)), ((0, 0), (0, 0))],
)
def test_a_sample_has_the_requested_number_and_at_most_a_part_of_it_is_positive(present, sampled):
    matches = matches_of(*present)
    chosen = sample(matches, keys_of(1), number=100, positive_fraction=0.25)
    assert chosen.indices.shape == (1, 100)
    assert (chosen.is_positive.sum(), chosen.is_sampled.sum()) == (sampled[0], sum(sampled))
    assert chosen.is_positive[0, : sampled[0]].all()
    assert chosen.is_sampled[0, : sum(sampled)].all()
    assert matches.is_positive[0, chosen.indices[chosen.is_positive]].all()
    negative = chosen.indices[chosen.is_sampled & ~chosen.is_positive]
    assert matches.is_negative[0, negative].all()
    assert len(negative.unique()) == sampled[1]


def test_a_sample_depends_on_the_images_seed_and_not_on_its_place_in_the_batch():
    together, alone = keys_of(3, 2**31 - 1, 0), keys_of(2**31 - 1)
    assert torch.equal(together[1:2], alone)
    assert not (together[0] == together[1]).any()
    assert not (keys_of(3) == keys_of(3, stream=1)).any()


def test_random_keys_are_even_and_independent_between_images_places_and_streams():
    keys = random_keys(torch.arange(200), torch.arange(NUM_BOXES), stream=0)
    assert keys.min() >= 0
    assert keys.max() < KEYS
    values = keys.double() / KEYS
    counts = torch.histc(values, 100, 0, 1)
    assert ((counts / counts.mean() - 1).abs() < 0.08).all()
    others = random_keys(torch.arange(200), torch.arange(NUM_BOXES), stream=1).double() / KEYS
    pairs = (values[1:], values[:-1]), (values[:, 1:], values[:, :-1]), (values, others)
    for one, other in pairs:
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].abs() < 0.01


def test_the_boxes_that_overlap_most_are_positive_where_they_are_forced():
    truth = Targets(
        torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]]]), torch.tensor([[2, 0]]), torch.zeros(1)
    )
    boxes = torch.tensor([[[0.0, 0, 10, 2], [0, 0, 2, 10], [0, 0, 10, 5], [50, 50, 60, 60]]])
    limits = {"low": 0.3, "high": 0.7}
    plain, forced = (match(truth, boxes, **limits, force=force) for force in (False, True))
    assert not plain.is_positive.any()
    assert plain.is_negative.tolist() == [[True, True, False, True]]
    assert forced.is_positive.tolist() == [[False, False, True, False]]
    assert torch.equal(forced.is_negative, plain.is_negative)
