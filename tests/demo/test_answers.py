import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from tests.demo.small_run import write_run
from virtex.demo.answers import (
    MAX_LABELS,
    NUM_CAPTIONS,
    caption_image,
    map_image,
    rank_labels,
    scale_images,
    search,
    split_labels,
    word_probability,
)
from virtex.demo.gallery import DemoGallery, find_images, open_gallery
from virtex.errors import ConfigError
from virtex.predict.attention_colors import scale_fractions, scale_ratios
from virtex.predict.loading import load_captioner
from virtex.predict.matching import MatchingConfig


def image_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def answer(predictor, noise):
    return caption_image(predictor, noise)


def test_the_captions_are_those_of_the_predictor_best_first(predictor, noise, answer):
    captions = predictor.captions([noise], NUM_CAPTIONS)[0]
    assert [one["text"] for one in answer["captions"]] == [one.text for one in captions]
    assert [" ".join(one["words"]) for one in answer["captions"]] == [one.text for one in captions]
    expected = [one.log_likelihood for one in captions]
    found = [one["log_likelihood"] for one in answer["captions"]]
    assert np.allclose(found, expected, atol=1e-4)
    assert expected == sorted(expected, reverse=True)
    backward = predictor.attend([noise], [captions[0]], direction="backward")[0]
    assert answer["captions"][0]["backward_log_likelihood"] == pytest.approx(
        backward.log_likelihood, abs=1e-4
    )


def test_each_word_has_a_map_of_each_kind_from_each_decoder(answer):
    for caption in answer["captions"]:
        assert set(caption["maps"]) == set(caption["attention"]) == {"forward", "backward"}
        assert len(caption["maps"]["forward"]["share"]) == len(caption["words"])
        assert len(caption["maps"]["forward"]["ratio"]) == len(caption["words"])
        assert len(caption["attention"]["forward"]) == len(caption["words"])
    first = answer["captions"][0]
    assert len(first["maps"]["backward"]["share"]) == len(first["words"])
    assert np.sum(first["attention"]["forward"], (1, 2)) == pytest.approx(1, abs=1e-3)


def test_the_backward_decoder_has_no_map_for_the_end_of_a_caption_that_was_cut(noise, tmp_path):
    answer = caption_image(load_captioner(write_run(tmp_path / "run", max_tokens=12)), noise)
    longest = max(answer["captions"], key=lambda caption: len(caption["text"]))
    assert len(longest["maps"]["backward"]["share"]) == len(longest["words"]) - 1


def test_the_photo_is_shown_with_its_shape(answer):
    assert image_of(answer["image"]).size == (80, 60)
    assert answer["aspect"] == pytest.approx(80 / 60)


def test_the_square_that_the_model_sees_is_the_centre_of_the_photo(answer, predictor):
    share = predictor.image.size / predictor.image.validation_short_side
    left, top, width, height = answer["seen"]
    assert height == pytest.approx(share, abs=0.02)
    assert width == pytest.approx(share * 60 / 80, abs=0.02)
    assert (left + width / 2, top + height / 2) == pytest.approx((0.5, 0.5), abs=0.02)


def test_a_map_is_brightest_where_the_attention_is():
    maps = np.array([[0, 0], [0, 1]], np.float32)
    pixels = np.asarray(image_of(map_image(*scale_fractions(maps))))
    lightness = pixels[..., :3].sum(2)
    assert pixels.shape == (8, 8, 4)
    assert lightness[5:, 5:].min() > 300 > 100 > lightness[:3].max()


def test_a_ratio_of_one_is_nearly_transparent():
    ratios = np.array([[1.0, 4.0]], np.float32)
    alpha = np.asarray(image_of(map_image(*scale_ratios(ratios))))[..., 3]
    assert alpha[:, 0].max() < 40 < alpha[:, -1].min()


def test_the_strips_run_from_dark_to_yellow_and_from_purple_to_orange():
    strips = {
        kind: np.asarray(image_of(uri).convert("RGB"))[0] for kind, uri in scale_images().items()
    }
    assert strips["share"][0].max() < 40 < 200 < strips["share"][-1].max()
    (red, _, blue), (other_red, _, other_blue) = strips["ratio"][[5, -6]].astype(int)
    assert blue > red
    assert other_red > other_blue


def test_the_probability_of_a_word_is_a_geometric_mean():
    assert word_probability(math.log(0.5 * 0.25 * 0.125), 2) == pytest.approx(0.25)


def test_labels_are_split_at_commas_and_lines_without_duplicates():
    assert split_labels(" a dog,  two\tcats\n\n;a dog, ") == ["a dog", "two cats"]


@pytest.mark.parametrize("text", ["", " ,\n", ",".join(map(str, range(MAX_LABELS + 1))), "x" * 201])
def test_no_labels_or_too_many_are_refused(text):
    with pytest.raises(ConfigError, match="label"):
        split_labels(text)


def test_labels_are_ranked_as_by_the_predictor(predictor, noise):
    answer = rank_labels(
        predictor, noise, text="ball, two dogs", template="the {}", prior="0.5", direction="both"
    )
    expected = predictor.classify(
        [noise],
        ["ball", "two dogs"],
        templates=["the {}"],
        matching=MatchingConfig("both", 0.5),
    )[0]
    weights = [(one["label"], one["probability"]) for one in answer["labels"]]
    assert dict(weights) == pytest.approx(
        dict(zip(expected.labels, expected.probabilities, strict=True))
    )
    assert weights[0][1] >= weights[1][1]


@pytest.fixture(scope="module")
def gallery(predictor, gallery_folder):
    return open_gallery(predictor, find_images("", gallery_folder))


def test_a_search_finds_what_the_predictor_finds(predictor, gallery):
    expected = [(one.index, one.score) for one in predictor.search("two dogs", gallery.encoded)]
    found = search(predictor, gallery, " two dogs ")["found"]
    assert [one["gallery"] for one in found] == [index for index, _ in expected]
    assert found[0]["word_probability"] == pytest.approx(math.exp(expected[0][1] / 3))


@pytest.mark.parametrize("text", ["  ", "x" * 201])
def test_an_empty_or_too_long_search_is_refused(text, predictor, gallery):
    with pytest.raises(ConfigError, match="1 to 200 letters"):
        search(predictor, gallery, text)


def test_a_search_without_a_gallery_says_how_to_have_one(predictor):
    with pytest.raises(ConfigError, match="--gallery"):
        search(predictor, DemoGallery((), (), None), "a dog")
