"""Relevance: which cells a word's log-likelihood depends on, to first order."""

import numpy as np
import pytest
import torch

from tests.predict.small_captioner import TEXTS
from virtex.data.captions import EncodeCaption
from virtex.errors import ConfigError, DataError
from virtex.models.decoding import DecodingConfig
from virtex.models.packing import DIRECTIONS
from virtex.predict import relevance as module
from virtex.predict.relevance import CaptionRelevance

BOTH = pytest.mark.parametrize("direction", DIRECTIONS)


@pytest.fixture
def unblurred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_blur", lambda size: np.eye(size, dtype=np.float32))


def word_score(predictor, grid, tokens, index, direction):
    """The log-likelihood of one token, by the definition: that of the caption's tokens up to it.

    Forward: of the first `index` tokens less that of one fewer; backward: of the last ones.
    """
    captioner = predictor.captioner
    (row,) = tokens.tolist()
    text = row if direction == "forward" else row[::-1]
    place = text.index(row[index])  # it occurs once
    cache = captioner.head.start(grid, num_beams=1, num_steps=place, direction=direction)
    for token in text[:place]:
        logits = captioner.step(torch.tensor([[token]]), cache)
    return logits[0, 0].log_softmax(0)[text[place]].item()


@BOTH
def test_it_is_the_gradient_of_a_word_s_log_likelihood_times_the_features(
    predictor, images, tokenizer, direction, unblurred
):
    text = TEXTS[0]
    grid = predictor.captioner.backbone(predictor.inputs(images[:1])).detach()
    tokens = EncodeCaption(tokenizer, max_tokens=12)(text)[None]
    chosen = torch.zeros(tokens.shape, dtype=torch.bool)
    row = tokens[0].tolist()
    index = next(i for i in range(1, len(row) - 1) if row.count(row[i]) == 1)
    chosen[0, index] = True
    found = predictor.captioner.relevance(
        grid, tokens, torch.tensor([len(row)]), chosen=chosen, direction=direction
    )[0]
    step = 1e-2
    for cell in ((0, 0), (1, 0), (grid.shape[2] - 1, grid.shape[3] - 1)):
        more, less = grid.clone(), grid.clone()
        more[:, :, *cell] *= 1 + step
        less[:, :, *cell] *= 1 - step
        difference = word_score(predictor, more, tokens, index, direction) - word_score(
            predictor, less, tokens, index, direction
        )
        assert found[cell].item() == pytest.approx(difference / (2 * step), rel=0.05, abs=2e-4)


def test_maps_are_one_for_each_word_and_sum_to_one(predictor, images):
    (found,) = predictor.relevance(images[0], TEXTS[0])
    assert isinstance(found, CaptionRelevance)
    assert found.words == tuple(TEXTS[0].replace(",", "").split())
    assert found.maps.shape[0] == len(found.words)
    assert (found.maps >= 0).all()
    np.testing.assert_allclose(found.maps.sum((1, 2)), 1, rtol=1e-5)
    assert found.directions == predictor.captioner.head.directions


def test_both_directions_are_their_mean(predictor, images):
    each = [predictor.relevance(images[0], TEXTS[0], direction=one)[0].maps for one in DIRECTIONS]
    assert not np.allclose(each[0], each[1])
    (both,) = predictor.relevance(images[0], TEXTS[0], direction="both")
    np.testing.assert_allclose(both.maps, np.mean(each, 0), atol=1e-6)


def test_the_same_in_any_batches_and_in_any_number_of_words_at_once(predictor, images, monkeypatch):
    texts = TEXTS[: len(images)]
    together = predictor.relevance(images[: len(texts)], texts)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    apart = predictor.relevance(images[: len(texts)], texts, batch_size=1)
    for one, other in zip(together, apart, strict=True):
        assert (one.words, one.text) == (other.words, other.text)
        np.testing.assert_allclose(one.maps, other.maps, atol=1e-5)


@pytest.mark.parametrize("text", ["", "日本", "."])
def test_a_caption_without_words_has_no_maps(predictor, images, text):
    (alone,) = predictor.relevance(images[0], text)
    assert (alone.words, alone.maps.shape[0]) == ((), 0)
    *_, height, width = predictor.relevance(images[0], TEXTS[0])[0].maps.shape
    assert alone.maps.shape == (0, height, width)
    for texts in ([text, TEXTS[0]], [TEXTS[0], text], [text, text]):
        together = predictor.relevance(images[:2], texts)
        for image, one, found in zip(images, texts, together, strict=False):
            (expected,) = predictor.relevance(image, one)
            assert found.words == expected.words
            np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5)


def test_without_texts_the_captions_that_it_writes_are_read(predictor, images):
    decoding = DecodingConfig(max_steps=10)
    captions = predictor.caption(images[:2], decoding)
    written = predictor.relevance(images[:2], decoding=decoding)
    given = predictor.relevance(images[:2], captions)
    for one, other, caption in zip(written, given, captions, strict=True):
        assert one.text == other.text == caption.text
        np.testing.assert_array_equal(one.maps, other.maps)


def test_weights_get_no_gradient(predictor, images):
    predictor.relevance(images[0], TEXTS[0])
    assert all(value.grad is None for value in predictor.captioner.parameters())


def test_a_word_that_no_cell_makes_likelier_has_a_uniform_map():
    values = np.full((2, 3), -1, np.float32)
    np.testing.assert_allclose(module._as_map(values), 1 / 6)


def test_a_blur_spreads_a_cell_by_a_gaussian_of_one_cell():
    point = np.zeros((5, 5), np.float32)
    point[2, 2] = 1
    blurred = module._as_map(point)
    rows, columns = np.indices((5, 5)) - 2
    expected = np.exp(-(rows**2 + columns**2) / 2)
    np.testing.assert_allclose(blurred, expected / expected.sum(), rtol=1e-5)
    corners = np.zeros((5, 5), np.float32)
    corners[0, 0] = corners[0, 4] = corners[4, 0] = corners[2, 2] = corners[2, 3] = 1
    assert divmod(module._as_map(corners).argmax(), 5) in [(2, 2), (2, 3)]


def test_what_cannot_be_read_is_refused(predictor, images):
    with pytest.raises(DataError, match="2 images and 1 texts: give one text for each image"):
        predictor.relevance(images[:2], TEXTS[:1])
    with pytest.raises(ConfigError, match="give one of the two"):
        predictor.relevance(images[0], TEXTS[0], prefix="a")
    with pytest.raises(ConfigError, match="sideways"):
        predictor.relevance(images[0], TEXTS[0], direction="sideways")
