import pytest
import torch
from torch.nn.functional import pad

from tests.models.small import VOCAB_SIZE, small_batch, small_captioner
from tests.oracles.attention import attention_by_hand
from virtex.errors import ConfigError
from virtex.models.attention import GridAttention
from virtex.models.packing import DIRECTIONS, Packing, read

NORMS = pytest.mark.parametrize("norm", ["post", "pre"])
BOTH = pytest.mark.parametrize("direction", DIRECTIONS)


def attention(captioner, batch, direction="forward"):
    images, tokens, lengths = batch
    with torch.no_grad():
        grid = captioner.backbone(images)
    return captioner.attention(grid, tokens, lengths, direction=direction)


@NORMS
@BOTH
def test_weights_equal_those_of_the_slow_twin(norm, direction):
    captioner = small_captioner(norm)
    images, tokens, lengths = batch = small_batch()
    weights = attention(captioner, batch, direction)  # (B, L, A, T, N)
    assert weights.shape == (4, 2, 3, 9, 6)
    assert weights.dtype == torch.float32
    for row, length in enumerate(lengths.tolist()):
        caption = tokens[row, :length]
        expected = attention_by_hand(captioner, images[row], caption, direction=direction)
        for place, one in expected.items():
            torch.testing.assert_close(weights[row, :, :, place], one, rtol=1e-3, atol=1e-5)


@BOTH
def test_weights_sum_to_one_for_predicted_tokens_and_are_zero_elsewhere(direction):
    _, _, lengths = batch = small_batch()
    sums = attention(small_captioner(), batch, direction).sum(4)  # (B, L, A, T)
    steps = torch.arange(9)
    unsaid = steps == 0 if direction == "forward" else steps == lengths[:, None] - 1
    said = (steps < lengths[:, None]) & ~unsaid  # (B, T)
    torch.testing.assert_close(sums, said.float()[:, None, None].expand_as(sums))


@BOTH
def test_padding_has_no_influence(direction):
    captioner = small_captioner()
    images, tokens, lengths = batch = small_batch()
    expected = attention(captioner, batch, direction)
    garbage = tokens.where(torch.arange(9) < lengths[:, None], torch.tensor(7))
    assert torch.equal(attention(captioner, (images, garbage, lengths), direction), expected)
    wider = attention(captioner, (images, pad(tokens, (0, 1)), lengths), direction)
    torch.testing.assert_close(wider[:, :, :, :9], expected)
    assert not wider[:, :, :, 9].any()


def test_a_caption_read_backward_is_the_reversed_caption_read_forward():
    captioner = small_captioner()
    forward, backward = captioner.head.decoders
    backward.load_state_dict(forward.state_dict())
    images, tokens, lengths = small_batch()
    mirrored = attention(captioner, (images, read(tokens, lengths, "backward"), lengths))
    weights = attention(captioner, (images, tokens, lengths), "backward")
    for row, length in enumerate(lengths.tolist()):
        aligned = mirrored[row, :, :, :length].flip(2)
        torch.testing.assert_close(weights[row, :, :, :length], aligned)


@BOTH
def test_the_weights_of_a_token_do_not_depend_on_the_token_itself(direction):
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    changed = tokens.clone()
    changed[1, 5] = tokens[1, 5] % (VOCAB_SIZE - 5) + 5
    weights = attention(captioner, (images, tokens, lengths), direction)[1]
    other = attention(captioner, (images, changed, lengths), direction)[1]
    same = torch.isclose(weights, other).flatten(3).all(3).all(0).all(0)  # (T,)
    before, after = (
        (slice(0, 6), slice(6, 9)) if direction == "forward" else (slice(5, 9), slice(0, 5))
    )
    assert same[before].all()
    assert not same[after].any()


def test_weights_times_values_are_what_the_layer_computes():
    torch.manual_seed(0)
    module = GridAttention(24, num_heads=3, dropout=0.1).eval()
    lengths = torch.tensor([3, 5])
    packing = Packing.of(lengths)
    hidden, grid = 3 * torch.randn(len(packing.rows), 24), 3 * torch.randn(2, 6, 24)
    weights = module.weights(hidden, packing, grid)  # (B, A, T, N)
    _, values = module.keys_values(grid)
    attended = (weights @ values).transpose(1, 2).flatten(2)  # (B, T, D)
    expected = module.out_projection(packing.pack(attended))
    torch.testing.assert_close(module(hidden, packing, grid), expected)


def test_a_direction_in_which_the_model_does_not_read_is_refused():
    with pytest.raises(ConfigError, match="reads forward, not 'backward'"):
        attention(small_captioner(bidirectional=False), small_batch(), "backward")
