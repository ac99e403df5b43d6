from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.predict.small_captioner import IMAGE, TASK, TEXTS
from virtex.data.captions import EncodeCaption
from virtex.errors import ConfigError, DataError
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import DIRECTIONS
from virtex.models.textual_head import HeadConfig
from virtex.predict.attention import CaptionAttention, attention_bias
from virtex.predict.predictor import Predictor

BOTH = pytest.mark.parametrize("direction", DIRECTIONS)
TWO_LAYERS = HeadConfig(hidden_size=64, num_layers=2, num_heads=2, max_tokens=12)


@pytest.fixture(scope="module")
def deeper(task, tokenizer):
    """Two layers of two heads."""
    torch.manual_seed(0)
    captioner = Captioner(task.captioner.backbone, TWO_LAYERS, len(tokenizer), bidirectional=True)
    return Predictor(captioner, tokenizer, IMAGE)


def close(attentions, others):
    return all(
        one.words == other.words
        and one.text == other.text
        and np.allclose(one.weights, other.weights, atol=1e-5)
        and np.isclose(one.log_likelihood, other.log_likelihood, atol=1e-3)
        for one, other in zip(attentions, others, strict=True)
    )


def random_attention(num_layers=2, num_heads=3, words=("two", "dogs"), grid=(4, 5), seed=0):
    shape = (num_layers, num_heads, len(words), *grid)
    weights = np.random.default_rng(seed).random(shape, np.float32)
    weights /= weights.sum((3, 4), keepdims=True)
    return CaptionAttention(" ".join(words), words, weights, "forward", -1.0)


@BOTH
def test_a_words_map_is_the_mean_of_those_of_its_pieces(direction, deeper, images, tokenizer):
    text = "older, on the ball"
    pieces = [tokenizer.id_to_piece(one) for one in tokenizer.encode(text)]
    assert pieces[:5] == ["▁o", "l", "d", "e", "r"]
    (attention,) = deeper.attend(images[0], text, direction=direction)
    tokens = EncodeCaption(tokenizer, max_tokens=12)(text)[None]
    grid = deeper.captioner.backbone(deeper.inputs(images[:1]))
    lengths = torch.tensor([tokens.shape[1]])
    rows = deeper.captioner.attention(grid, tokens, lengths, direction=direction)[0].detach()
    older = rows[:, :, 1:6].mean(2).unflatten(2, grid.shape[2:])
    assert attention.words == ("older", "on", "the", "ball")
    np.testing.assert_allclose(attention.weights[:, :, 0], older, atol=1e-6)


@BOTH
def test_every_word_of_a_text_has_maps_that_sum_to_one(direction, deeper, images):
    attentions = deeper.attend(images[:3], TEXTS, direction=direction)
    for attention, text in zip(attentions, TEXTS, strict=True):
        assert attention.text == text
        assert attention.words == tuple(text.split())
        assert attention.weights.shape == (2, 2, len(attention.words), 2, 2)
        assert attention.weights.dtype == np.float32
        np.testing.assert_allclose(attention.weights.sum((3, 4)), 1, rtol=1e-5)


@BOTH
def test_the_log_likelihood_is_that_of_score(direction, predictor, images):
    attentions = predictor.attend(images[:3], TEXTS, direction=direction)
    expected = predictor.score(images[:3], TEXTS, direction=direction)
    np.testing.assert_allclose([one.log_likelihood for one in attentions], expected, rtol=1e-4)


def test_without_texts_the_attention_is_of_the_captions(predictor, images):
    decoding = DecodingConfig(max_steps=10)
    captions = predictor.caption(images, decoding)
    attentions = predictor.attend(images, decoding=decoding)
    assert [one.text for one in attentions] == [caption.text for caption in captions]
    assert close(attentions, predictor.attend(images, captions))
    expected = [caption.log_likelihood for caption in captions]
    np.testing.assert_allclose([one.log_likelihood for one in attentions], expected, rtol=1e-4)


@BOTH
def test_attention_does_not_depend_on_the_batch_size(direction, predictor, images):
    together = predictor.attend(images, direction=direction)
    assert len({len(one.words) for one in together}) > 1
    assert close(predictor.attend(images, direction=direction, batch_size=2), together)


@BOTH
def test_a_caption_cut_at_the_maximum_length_is_read_too(direction, predictor, images):
    (caption,) = predictor.caption(images[0], DecodingConfig("greedy", max_steps=3))
    tokens = caption.tokens[:1] * 12
    longest = replace(caption, text=predictor.tokenizer.decode(tokens), tokens=tokens)
    (attention,) = predictor.attend(images[0], longest, direction=direction)
    assert len(attention.text) >= len(longest.text) * 11 // 12 - 1
    np.testing.assert_allclose(attention.weights.sum((3, 4)), 1, rtol=1e-5)


def test_unknown_characters_are_left_out(predictor, images):
    (attention,) = predictor.attend(images[0], "two 漢字 dogs")
    assert attention.words == ("two", "dogs")
    (empty,) = predictor.attend(images[0], "漢")
    assert empty.words == ()
    assert empty.maps().shape == (0, 2, 2)
    with pytest.raises(DataError, match="without words"):
        _ = empty.mean_map


def test_maps_are_of_one_layer_or_head_or_the_mean_of_all():
    attention = random_attention()
    for layer, head in ((0, 0), (0, 1), (1, 2)):
        expected = attention.weights[layer, head]
        np.testing.assert_array_equal(attention.maps(layer, head), expected)
    np.testing.assert_allclose(attention.maps(1), attention.weights[1].mean(0), rtol=1e-6)
    np.testing.assert_allclose(attention.maps(head=2), attention.weights[:, 2].mean(0), rtol=1e-6)
    np.testing.assert_allclose(attention.maps().sum((1, 2)), 1, rtol=1e-5)


def test_maps_over_a_bias_are_ratios_of_means():
    attention, bias = random_attention(), random_attention(seed=1).mean_map
    for chosen in ((None, None), (0, None), (1, 2)):
        usual = random_attention(seed=1).maps(*chosen).mean(0)
        ratios = attention.maps(*chosen, bias=bias)
        np.testing.assert_allclose(ratios * usual, attention.maps(*chosen), rtol=1e-4)


def test_the_bias_is_the_mean_over_captions_and_not_over_words():
    short, long = random_attention(words=("a",)), random_attention(words=tuple("bcdefg"), seed=1)
    empty = random_attention(words=())
    expected = (short.weights.mean(2) + long.weights.mean(2)) / 2
    np.testing.assert_allclose(attention_bias([short, long, empty]), expected, rtol=1e-5)
    with pytest.raises(DataError, match="of 1 captions none has words"):
        attention_bias([empty])


def test_layers_heads_and_texts_that_do_not_exist_are_refused(predictor, task, tokenizer, images):
    attention = random_attention()
    with pytest.raises(ConfigError, match="head 3 of 3: give 0 to 2"):
        attention.maps(head=3)
    with pytest.raises(ConfigError, match="layer -1 of 2"):
        attention.maps(layer=-1)
    with pytest.raises(ConfigError, match="a bias of shape"):
        attention.maps(bias=random_attention(num_heads=2).mean_map)
    with pytest.raises(DataError, match="2 images and 3 texts: give one"):
        predictor.attend(images[:2], TEXTS)
    with pytest.raises(ConfigError, match="give one of the two"):
        predictor.attend(images[0], TEXTS[0], decoding=DecodingConfig())
    with pytest.raises(ConfigError, match="'both' is none of forward, backward"):
        predictor.attend(images[0], direction="both")
    head = TASK.head
    one_way = Captioner(task.captioner.backbone, head, len(tokenizer), bidirectional=False)
    with pytest.raises(ConfigError, match="needs a backward decoder"):
        Predictor(one_way, tokenizer, IMAGE).attend(images[0], direction="backward")
