import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from tests.oracles import classification as slow
from virtex.models.k_hot import NO_TARGET, DocumentFrequencies, bce_losses, softmax_losses

NUM_CLASSES = 7
documents = st.lists(st.integers(0, NUM_CLASSES - 1), max_size=5, unique=True)
batches = st.lists(documents, min_size=1, max_size=4)


def padded(targets: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, targets))
    return torch.tensor(
        [own + [NO_TARGET] * (longest - len(own)) for own in targets], dtype=torch.int64
    ).view(len(targets), longest)


def some_logits(num_examples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_examples)
    return 3 * torch.randn(num_examples, NUM_CLASSES, generator=generator, dtype=torch.float64)


@given(batches)
def test_the_softmax_loss_is_that_of_its_slow_twin(targets):
    logits = some_logits(len(targets))
    loss = softmax_losses(logits, padded(targets)).mean().item()
    assert loss == pytest.approx(slow.softmax_loss(logits.tolist(), targets), rel=1e-6)


@given(batches)
def test_a_weighted_softmax_loss_is_that_of_its_slow_twin(targets):
    logits = some_logits(len(targets))
    weights = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 0.0]
    loss = softmax_losses(logits, padded(targets), torch.tensor(weights)).mean().item()
    assert loss == pytest.approx(slow.softmax_loss(logits.tolist(), targets, weights), rel=1e-6)


@given(batches)
def test_the_bce_loss_is_that_of_its_slow_twin(targets):
    logits = some_logits(len(targets))
    loss = bce_losses(logits, padded(targets)).mean().item()
    assert loss == pytest.approx(slow.bce_loss(logits.tolist(), targets), rel=1e-6)


def test_with_one_target_the_softmax_loss_is_the_cross_entropy():
    logits, labels = some_logits(5), torch.tensor([3, 0, 6, 6, 1])
    losses = softmax_losses(logits, labels[:, None])
    torch.testing.assert_close(losses, cross_entropy(logits, labels, reduction="none"))


def test_equal_weights_change_nothing():
    logits, targets = some_logits(3), padded([[1, 2], [0], [4, 5, 6]])
    weighted = softmax_losses(logits, targets, torch.full((NUM_CLASSES,), 0.3))
    torch.testing.assert_close(weighted, softmax_losses(logits, targets))


def test_scores_beyond_the_range_of_exp_give_finite_losses_and_gradients():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    targets = torch.tensor([[0, 1]])
    losses = softmax_losses(logits, targets) + bce_losses(logits, targets)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("targets", [padded([[], [1]]), padded([[], []])])
def test_an_example_without_targets_adds_nothing_to_a_softmax(targets):
    logits = some_logits(2).requires_grad_()
    losses = softmax_losses(logits, targets)
    losses.sum().backward()
    assert losses[0] == 0
    assert torch.equal(logits.grad[0], torch.zeros(NUM_CLASSES, dtype=torch.float64))


def test_an_example_whose_targets_have_weight_zero_adds_nothing():
    losses = softmax_losses(some_logits(1), padded([[0, 1]]), torch.zeros(NUM_CLASSES))
    assert losses.tolist() == [0]


@given(st.lists(batches, min_size=1, max_size=4))
def test_weights_by_document_frequency_are_those_of_their_slow_twin(stream):
    frequencies, seen = DocumentFrequencies(NUM_CLASSES), []
    for targets in stream:
        frequencies.count([padded(targets)])
        seen += targets
        expected = torch.tensor(slow.idf_weights(seen, NUM_CLASSES))
        torch.testing.assert_close(frequencies.weights(), expected)


def test_weights_are_never_negative_and_zero_for_a_class_in_every_example():
    frequencies = DocumentFrequencies(3)
    for _ in range(100):
        frequencies.count([torch.tensor([[0, 1], [0, NO_TARGET]])])
    weights = frequencies.weights()
    assert weights[0] == 0
    assert 0 < weights[1] < weights[2]


def test_before_any_count_all_weights_are_zero():
    assert DocumentFrequencies(3).weights().tolist() == [0, 0, 0]
