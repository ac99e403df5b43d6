import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from tests.models.small import small_batch, small_captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import DIRECTIONS, read
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID, UNK_ID


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_score_is_the_sum_of_the_tokens_log_probabilities(direction):
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    log_probs = captioner.logits(images, tokens, lengths, direction=direction).log_softmax(2)
    expected = [
        sum(log_probs[row, t, caption[t + 1]].item() for t in range(length - 1))
        for row, (caption, length) in enumerate(
            zip(read(tokens, lengths, direction), lengths.tolist(), strict=True)
        )
    ]
    score = captioner.score(images, tokens, lengths, direction=direction)
    torch.testing.assert_close(score, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_the_loss_is_minus_the_mean_score_of_a_token():
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    losses = captioner.loss(images, tokens, lengths)
    assert list(losses) == list(DIRECTIONS)
    for direction in DIRECTIONS:
        score = captioner.score(images, tokens, lengths, direction=direction)
        mean = -score.sum() / (lengths - 1).sum()
        torch.testing.assert_close(losses[direction].detach(), mean)


def test_a_forward_captioner_has_one_loss():
    captioner = small_captioner(bidirectional=False)
    assert list(captioner.loss(*small_batch())) == ["forward"]
    assert not captioner.bidirectional


def test_an_unknown_token_is_no_target():
    captioner = small_captioner()
    images, tokens, lengths = small_batch()
    tokens[1, 4] = UNK_ID
    log_probs = captioner.logits(images, tokens, lengths).log_softmax(2)[1]
    known = [t for t in range(8) if t != 3]
    expected = sum(log_probs[t, tokens[1, t + 1]] for t in known)
    score = captioner.score(images, tokens, lengths)[1]
    torch.testing.assert_close(score, expected.detach(), rtol=1e-4, atol=1e-4)
    loss = captioner.loss(images[1:2], tokens[1:2], lengths[1:2])["forward"]
    torch.testing.assert_close(loss.detach(), -score / len(known))


@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=6), min_size=1, max_size=4))
def test_reading_backward_reverses_each_caption_within_its_length(captions):
    lengths = torch.tensor([len(caption) for caption in captions])
    padded = pad_sequence([torch.tensor(caption) for caption in captions], batch_first=True)
    backward = read(padded, lengths, "backward")
    for row, caption in zip(backward.tolist(), captions, strict=True):
        assert row == caption[::-1] + [PAD_ID] * (len(row) - len(caption))
    assert torch.equal(read(backward, lengths, "backward"), padded)


@pytest.mark.parametrize("strategy", ["beam", "greedy", "nucleus"])
def test_the_score_of_a_generated_caption_is_its_log_probability(strategy):
    captioner = small_captioner(seed=2)
    images = small_batch()[0]
    decoding = DecodingConfig(strategy, num_beams=3, max_steps=9, top_p=1.0)
    generated = captioner.generate(images, decoding, rng=torch.Generator().manual_seed(0)).best()
    whole = generated.tokens.gather(1, generated.lengths[:, None] - 1)[:, 0] == EOS_ID
    start = torch.full((len(images), 1), SOS_ID)
    tokens = torch.cat([start, generated.tokens], dim=1)
    score = captioner.score(images, tokens, generated.lengths + 1)
    assert generated.tokens.shape[1] == generated.lengths.max()
    assert whole.any() or generated.lengths.max() == 9
    torch.testing.assert_close(generated.log_probs, score, rtol=1e-4, atol=1e-4)


def test_images_captioned_together_and_alone_have_the_same_captions():
    captioner = small_captioner(seed=2)
    images = small_batch()[0]
    decoding = DecodingConfig(num_beams=3, max_steps=9)
    together = captioner.generate(images, decoding).best()
    for row, image in enumerate(images):
        alone = captioner.generate(image[None], decoding).best()
        length = alone.lengths[0]
        assert together.tokens[row, :length].tolist() == alone.tokens[0, :length].tolist()


def test_generating_in_training_mode_is_an_assertion_error():
    captioner = small_captioner().train()
    with pytest.raises(AssertionError, match="eval"):
        captioner.generate(small_batch()[0], DecodingConfig(max_steps=9)).best()


def test_backbone_and_head_learn_from_the_loss():
    captioner = small_captioner().train()
    sum(captioner.loss(*small_batch()).values()).backward()
    without = [name for name, parameter in captioner.named_parameters() if parameter.grad is None]
    assert without == []
