import pytest
import torch
from torch import nn

from tests.models.small import MAX_TOKENS, VOCAB_SIZE, small_batch, small_captioner
from tests.oracles.textual_head import PaddedCaptioner
from virtex.errors import ConfigError
from virtex.models.attention import SelfAttention
from virtex.models.packing import DIRECTIONS, Packing, layout, pack_tokens
from virtex.models.textual_head import HeadConfig, TextualHead
from virtex.zoo.released import to_released

NORMS = pytest.mark.parametrize("norm", ["post", "pre"])


def real_rows(lengths, num_tokens):
    return torch.arange(num_tokens) < lengths[:, None]


@NORMS
def test_packed_logits_equal_those_of_the_padded_twin(norm):
    captioner = small_captioner(norm)
    images, tokens, lengths = batch = small_batch()
    expected = PaddedCaptioner(captioner).logits(*batch)
    real = real_rows(lengths, tokens.shape[1])
    for direction in DIRECTIONS:
        logits = captioner.logits(images, tokens, lengths, direction=direction)
        torch.testing.assert_close(logits[real], expected[direction][real], rtol=1e-4, atol=1e-4)


@NORMS
def test_packed_losses_and_gradients_equal_those_of_the_padded_twin(norm):
    captioner = small_captioner(norm).double()
    images, tokens, lengths = small_batch()
    batch = images.double(), tokens, lengths
    twin = PaddedCaptioner(captioner)
    losses, expected = captioner.loss(*batch), twin.loss(*batch)
    torch.testing.assert_close(losses, expected)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    gradients = to_released({name: value.grad for name, value in captioner.named_parameters()})
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_what_stands_in_the_padding_never_matters():
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    garbage = tokens.where(real_rows(lengths, tokens.shape[1]), torch.tensor(7))
    assert captioner.loss(images, garbage, lengths) == captioner.loss(images, tokens, lengths)


def test_longer_padding_never_matters():
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    wider = nn.functional.pad(tokens, (0, 1))
    torch.testing.assert_close(
        captioner.loss(images, wider, lengths), captioner.loss(images, tokens, lengths)
    )


@NORMS
def test_a_token_never_sees_later_ones(norm):
    captioner = small_captioner(norm)
    images, tokens, lengths = small_batch()
    changed = tokens.clone()
    changed[1, 5] = tokens[1, 5] % (VOCAB_SIZE - 5) + 5
    logits = captioner.logits(images, tokens, lengths)[1]
    other = captioner.logits(images, changed, lengths)[1]
    torch.testing.assert_close(logits[:5], other[:5])
    assert not torch.isclose(logits[5:], other[5:]).all(1).any()


NONCAUSAL = torch.tensor([True, False, True, True])


def random_targets(tokens, lengths):
    """About half the tokens of each caption, never those of padding."""
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    return torch.randint_like(tokens, 4, VOCAB_SIZE) * (
        chosen & real_rows(lengths, tokens.shape[1])
    )


def chosen_losses(captioner, grid, tokens, targets, lengths):
    """Losses at the targets, of inputs (B, T) and targets (B, T)."""
    packing = Packing.of(lengths).seeing_all(NONCAUSAL)
    size = len(packing.rows)
    packed = pack_tokens(targets, lengths, size)
    chosen = packed.nonzero().squeeze(1)
    inputs = pack_tokens(tokens, lengths, size)
    losses = captioner.token_losses(grid, inputs, packed[chosen], packing, chosen=chosen)
    everywhere = captioner.token_losses(grid, inputs, packed, packing)
    torch.testing.assert_close(everywhere[chosen], losses)
    assert everywhere.count_nonzero() == len(losses)
    return losses


@NORMS
def test_noncausal_captions_among_causal_ones_equal_the_padded_twin(norm):
    captioner = small_captioner(norm).double()
    images, tokens, lengths = small_batch()
    twin, targets = PaddedCaptioner(captioner), random_targets(tokens, lengths)
    grid = captioner.backbone(images.double())
    losses = chosen_losses(captioner, grid, tokens, targets, lengths)
    options = {"lengths": lengths, "noncausal": NONCAUSAL}
    expected = twin.answer_losses(images.double(), tokens, targets, **options)
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    expected.sum().backward()
    reached = {name: p.grad for name, p in captioner.named_parameters() if p.grad is not None}
    gradients = to_released(reached)
    for name, parameter in twin.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_a_token_sees_later_ones_in_whole_captions_alone():
    captioner = small_captioner().double()
    images, tokens, lengths = small_batch()
    grid, targets = captioner.backbone(images.double()), torch.zeros_like(tokens)
    targets[:, 0] = 7
    changed = tokens.clone()
    changed[[0, 1, 3], 3] = tokens[[0, 1, 3], 3] % (VOCAB_SIZE - 5) + 5
    losses, others = (
        chosen_losses(captioner, grid, inputs, targets, lengths) for inputs in (tokens, changed)
    )
    assert torch.isclose(losses, others, rtol=1e-9).tolist() == [False, True, True, False]


def test_what_stands_in_the_padding_never_matters_to_whole_captions():
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    grid, targets = captioner.backbone(images), random_targets(tokens, lengths)
    garbage = tokens.where(real_rows(lengths, tokens.shape[1]), torch.tensor(7))
    losses, others = (
        chosen_losses(captioner, grid, inputs, targets, lengths) for inputs in (tokens, garbage)
    )
    assert torch.equal(losses, others)


def test_an_empty_row_makes_nothing_nan():
    attention = SelfAttention(8, num_heads=2, dropout=0.0)
    packing = Packing.of(torch.tensor([2, 0])).seeing_all()
    hidden = torch.randn(len(packing.rows), 8, requires_grad=True)
    attention(hidden, packing).sum().backward()
    assert packing.visible.any(3).all()
    assert hidden.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in attention.parameters())


def test_packing_and_padding_are_inverse():
    lengths = torch.tensor([2, 0, 3])
    packing = Packing.of(lengths)
    assert torch.equal(packing.is_real, real_rows(lengths, 8))
    padded = torch.randn(3, 8, 2)
    real = packing.is_real
    assert torch.equal(packing.pad(packing.pack(padded))[real], padded[real])
    assert packing.positions[:5].tolist() == [0, 1, 0, 1, 2]
    assert packing.captions[:5].tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("lengths", [[8], [8, 8], [1], [0, 0], [3, 8, 1], [13] * 300])
def test_sizes_are_rounded_up_and_leave_padding_and_a_dead_token(lengths):
    rows, places = layout(torch.tensor(lengths))
    num_real = sum(lengths)
    assert places.shape[1] % 8 == 0
    assert places.numel() > num_real < len(rows)
    assert len(rows) % (256 if num_real >= 2048 else 1) == 0
    assert (places.flatten()[rows[num_real:]] == len(rows) - 1).all()
    assert places.flatten()[rows[:num_real]].tolist() == list(range(num_real))


def test_gradients_of_packing_and_padding_are_those_of_indexing():
    packing = Packing.of(torch.tensor([2, 0, 3]))
    padded = torch.randn(3, 8, 2, requires_grad=True)
    weights = torch.randn(3, 8, 2) * packing.is_real[..., None]
    (packing.pad(3 * packing.pack(padded)) * weights).sum().backward()
    torch.testing.assert_close(padded.grad, 3 * weights)


def head(**config):
    return TextualHead(16, HeadConfig(**config), 1000, bidirectional=True)


def test_weights_start_normal_with_deviation_0_02():
    textual_head = head(hidden_size=128, num_layers=2, norm="pre")
    for name, parameter in textual_head.named_parameters():
        if parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
            assert parameter.mean().abs() < 0.002, name
    assert not textual_head.embedding.words.weight[0].any()


def test_biases_start_as_those_of_torch():
    textual_head = head(hidden_size=128)
    attention = textual_head.decoders[0].layers[0].grid_attention
    assert not any(layer.bias.any() for layer in attention.children())
    for bias, inputs in [
        (textual_head.output_bias, 128),
        (textual_head.visual_projection.bias, 16),
        (textual_head.decoders[1].layers[0].feedforward.contract.bias, 512),
    ]:
        assert 0.9 < bias.abs().max().item() * inputs**0.5 <= 1


def test_decay_spares_norms_and_biases_of_embedding_and_transformers_alone():
    textual_head = head(hidden_size=64, norm="pre")
    spared = textual_head.no_weight_decay()
    inside = [
        module
        for root in (textual_head.embedding, textual_head.decoders)
        for module in root.modules()
    ]
    norms = [p for m in inside if isinstance(m, nn.LayerNorm) for p in m.parameters()]
    biases = [m.bias for m in inside if isinstance(m, nn.Linear)]
    expected = {id(parameter) for parameter in norms + biases}
    parameters = dict(textual_head.named_parameters())
    assert {id(parameters[name]) for name in spared} == expected
    assert "output_bias" not in spared
    assert "visual_projection.bias" not in spared


def test_both_directions_own_no_more_than_their_transformer():
    forward = TextualHead(16, HeadConfig(64), 100, bidirectional=False)
    both = TextualHead(16, HeadConfig(64), 100, bidirectional=True)
    extra = both.state_dict().keys() - forward.state_dict().keys()
    assert {name.split(".layers.")[0] for name in extra} == {"decoders.1"}


def test_heads_and_feedforward_follow_the_papers_rule():
    config = HeadConfig(hidden_size=768)
    assert (config.heads, config.feedforward) == (12, 3072)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 100}, "100 is not a multiple of 64: set num_heads"),
        ({"hidden_size": 64, "num_heads": 5}, "64 is not a multiple of num_heads 5"),
        ({"num_layers": 0}, "num_layers 0 must be at least 1"),
        ({"feedforward_size": -1}, "feedforward_size -1 must be at least 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"norm": "both"}, "'both'"),
        ({"max_tokens": 1}, "max_tokens 1"),
        ({"dropout": -0.1, "max_tokens": 0}, "(?s)max_tokens.*dropout"),
    ],
)
def test_a_size_that_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        HeadConfig(**options)


def test_a_forward_head_does_not_read_backward():
    captioner = small_captioner(bidirectional=False)
    with pytest.raises(ConfigError, match="reads forward, not 'backward'"):
        captioner.logits(*small_batch(), direction="backward")


def test_dropout_acts_in_training_alone():
    captioner = small_captioner(dropout=0.5)
    batch = small_batch()
    assert captioner.loss(*batch) == captioner.loss(*batch)
    captioner.head.train()
    assert captioner.loss(*batch) != captioner.loss(*batch)


def test_captions_beyond_the_position_table_are_refused():
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    wider = nn.functional.pad(tokens, (0, MAX_TOKENS))
    with pytest.raises(ConfigError, match="captions of 19 tokens"):
        captioner.logits(images, wider, lengths)
