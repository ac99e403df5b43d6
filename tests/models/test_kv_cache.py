import pytest
import torch

from tests.models.small import MAX_TOKENS, VOCAB_SIZE, small_batch, small_captioner
from virtex.errors import ConfigError
from virtex.models.packing import DIRECTIONS

NUM_BEAMS = 3
NUM_STEPS = 6


@pytest.fixture(params=["post", "pre"])
def captioner(request):
    return small_captioner(request.param)


@pytest.fixture
def images():
    return small_batch()[0]


def histories(seed=0):
    """Random tokens (B, K, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCAB_SIZE, (4, NUM_BEAMS, NUM_STEPS), generator=generator)


def full_logits(captioner, images, tokens):
    """Logits (B, K, V) after whole histories (B, K, T), computed from scratch for each beam."""
    beams = [
        captioner.logits(images, beam, torch.full((len(beam),), beam.shape[1]))[:, -1]
        for beam in tokens.unbind(1)
    ]
    return torch.stack(beams, dim=1)


def start(captioner, images, **options):
    return captioner.start(images, num_beams=NUM_BEAMS, num_steps=NUM_STEPS, **options)


def feed(captioner, cache, tokens):
    """Logits after the last of tokens (B, K, T)."""
    for column in tokens.unbind(2):
        logits = captioner.step(column, cache)
    return logits


@pytest.mark.parametrize("direction", DIRECTIONS)
@torch.no_grad()
def test_steps_give_the_logits_of_whole_captions(captioner, direction):
    images, tokens, lengths = small_batch()
    expected = captioner.logits(images, tokens, lengths, direction=direction)
    cache = captioner.start(images, num_beams=1, num_steps=9, direction=direction)
    reading = tokens[1] if direction == "forward" else tokens[1].flip(0)
    for step, token in enumerate(reading):
        logits = captioner.step(token.expand(4, 1), cache)
        torch.testing.assert_close(logits[1, 0], expected[1, step], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_each_beam_has_its_own_history(captioner, images):
    tokens = histories()
    logits = feed(captioner, start(captioner, images), tokens)
    expected = full_logits(captioner, images, tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_reordered_beams_continue_their_parents(captioner, images):
    tokens = histories()
    parents = torch.tensor([[2, 0, 0], [1, 1, 1], [0, 1, 2], [2, 1, 0]])
    cache = start(captioner, images)
    feed(captioner, cache, tokens[:, :, :4])
    cache.reorder(parents)
    logits = feed(captioner, cache, tokens[:, :, 4:])
    inherited = tokens[torch.arange(4)[:, None], parents, :4]
    continued = torch.cat([inherited, tokens[:, :, 4:]], dim=2)
    expected = full_logits(captioner, images, continued)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_kept_images_go_on_as_if_alone(captioner, images):
    tokens, kept = histories(), torch.tensor([3, 1])
    cache = start(captioner, images)
    feed(captioner, cache, tokens[:, :, :4])
    cache.keep(kept)
    logits = feed(captioner, cache, tokens[kept, :, 4:])
    assert cache.batch_size == 2
    expected = full_logits(captioner, images[kept], tokens[kept])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_dropped_start_leaves_the_later_tokens_alone(captioner, images):
    tokens = histories()
    cache = start(captioner, images)
    captioner.step(tokens[:, :, 0], cache)
    cache.drop_start()
    logits = feed(captioner, cache, tokens[:, :, 1:3])
    cache.reorder(torch.tensor([[1, 2, 0]]).expand(4, 3))
    logits = feed(captioner, cache, tokens[:, :, 3:])
    continued = torch.cat([tokens[:, [1, 2, 0], 1:3], tokens[:, :, 3:]], dim=2)
    expected = full_logits(captioner, images, continued)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_beams_share_what_is_kept_of_their_image(captioner, images):
    cache = start(captioner, images)
    num_cells = 2 * 3
    assert cache.layers[0].grid_keys.shape[:3] == (4, 3, num_cells)
    assert (cache.batch_size, cache.num_beams) == (4, NUM_BEAMS)


def test_more_steps_than_positions_are_refused(captioner, images):
    with pytest.raises(ConfigError, match=f"at most {MAX_TOKENS}"):
        captioner.start(images, num_beams=1, num_steps=MAX_TOKENS + 1)
