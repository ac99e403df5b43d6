import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.predict.small_captioner import IMAGE, TASK, TEXTS, small_task
from tests.real_data import real
from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.data.transforms import ValidationTransform, normalize
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.decoding import DecodingConfig
from virtex.predict.matching import MatchingConfig
from virtex.predict.predictor import Predictor


def close(captions, others):
    """The same texts and tokens, and likelihoods up to rounding."""
    same = [(c.text, c.tokens) for c in captions] == [(c.text, c.tokens) for c in others]
    return same and np.allclose(
        [c.log_likelihood for c in captions], [c.log_likelihood for c in others], atol=1e-4
    )


def test_an_image_is_the_same_in_each_form_in_which_it_may_be_given(predictor, images, tmp_path):
    array = images[0]
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    expected = predictor.caption(array)
    assert len(expected) == 1
    forms = [path, str(path), Image.open(path), torch.from_numpy(array).permute(2, 0, 1)]
    for form in forms:
        assert close(predictor.caption(form), expected)
    assert close(predictor.caption(forms), expected * len(forms))
    assert close(predictor.caption(np.stack([array, array])), expected * 2)
    assert close(predictor.caption(torch.stack([forms[3]] * 2)), expected * 2)


def test_a_pil_image_is_turned_upright_and_put_on_white_like_its_file(predictor, images):
    transparent = Image.fromarray(images[0]).convert("RGBA")
    transparent.putalpha(100)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(images[0]).save(file, "PNG", exif=exif.tobytes())
    turned = Image.fromarray(np.rot90(images[0], -1))
    white = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    assert close(predictor.caption(Image.open(file)), predictor.caption(turned))
    assert close(predictor.caption(transparent), predictor.caption(white.convert("RGB")))


@pytest.mark.parametrize("strategy", ["beam", "greedy", "nucleus"])
def test_captions_do_not_depend_on_the_batch_size(strategy, predictor, images):
    decoding = DecodingConfig(strategy, max_steps=10)
    together = predictor.caption(images, decoding, seed=3)
    assert len({caption.text for caption in together}) > 1
    assert len({len(caption.tokens) for caption in together}) > 1
    assert close(predictor.caption(images, decoding, batch_size=2, seed=3), together)


def test_a_seed_decides_what_is_sampled(predictor, images):
    decoding = DecodingConfig("nucleus", max_steps=10)
    first, again, other = (predictor.caption(images, decoding, seed=s) for s in (0, 0, 1))
    assert first == again
    assert [c.text for c in first] != [c.text for c in other]


def test_a_captions_likelihood_is_the_score_of_its_tokens(predictor, images):
    captions = predictor.caption(images, DecodingConfig(max_steps=10))
    tokens, lengths = pad_tokens([torch.tensor([1, *caption.tokens]) for caption in captions])
    transform = ValidationTransform(IMAGE)
    batch = torch.stack([transform(Example("", image)) for image in images])
    scores = predictor.captioner.score(normalize(batch), tokens, lengths)
    expected = [caption.log_likelihood for caption in captions]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)
    assert [c.text for c in captions] == [predictor.tokenizer.decode(c.tokens) for c in captions]


def test_score_is_the_sum_of_the_models_log_probabilities(predictor, images, tokenizer):
    scores = predictor.score(images[:3], TEXTS, batch_size=2)
    encode = EncodeCaption(tokenizer, max_tokens=TASK.head.max_tokens)
    for image, text, score in zip(images[:3], TEXTS, scores, strict=True):
        image = normalize(ValidationTransform(IMAGE)(Example("", image))[None])
        tokens = encode(text)[None]
        logits = predictor.captioner.logits(image, tokens, torch.tensor([tokens.shape[1]]))
        log_probs = logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])
        assert score == pytest.approx(log_probs.sum().item(), rel=1e-4)
    assert predictor.score(images[0], TEXTS[0]) == pytest.approx(scores[:1], rel=1e-4)


def test_inputs_that_are_no_images_or_no_pairs_are_refused(predictor, images, tmp_path):
    with pytest.raises(DataError, match=r"float32 and shape \(3, 8, 8\)\. Allowed are paths"):
        predictor.caption(torch.zeros(3, 8, 8))
    with pytest.raises(DataError, match=r"shape \(8, 8, 4\)"):
        predictor.caption([np.zeros((8, 8, 4), np.uint8)])
    with pytest.raises(BadImageError, match="missing"):
        predictor.caption(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="2 images and 3 texts"):
        predictor.score(images[:2], TEXTS)


def test_images_are_captioned_from_their_files(predictor):
    folder = real("data/coco_mini/val2017")
    captions = predictor.caption(sorted(folder.glob("*.jpg"))[:3])
    assert len(captions) == 3
    assert all(np.isfinite(caption.log_likelihood) for caption in captions)


def test_several_captions_are_sorted_and_the_first_is_the_best(predictor, images):
    several = predictor.captions(images, 3)
    for captions, best in zip(several, predictor.caption(images), strict=True):
        likelihoods = [caption.log_likelihood for caption in captions]
        assert likelihoods == sorted(likelihoods, reverse=True)
        assert len({caption.tokens for caption in captions}) == len(captions) > 1
        assert captions[0] == best


def test_captions_begin_with_the_prefix(predictor, images):
    with_prefix = predictor.caption(images, prefix="two dogs")
    assert all(caption.text.startswith("two dogs") for caption in with_prefix)
    assert len({caption.text for caption in with_prefix}) > 1


def test_a_score_of_both_directions_is_the_mean_of_the_two(predictor, images):
    scores = {
        direction: np.array(predictor.score(images[:3], TEXTS, direction=direction))
        for direction in ("forward", "backward", "both")
    }
    assert not np.allclose(scores["forward"], scores["backward"])
    mean = (scores["forward"] + scores["backward"]) / 2
    np.testing.assert_allclose(scores["both"], mean, rtol=1e-5)


def test_a_label_scores_as_the_mean_of_its_texts(predictor, images):
    labels, templates = ["dogs", "red ball"], ["a {}", "the {} on the table"]
    found = predictor.classify(images, labels, templates=templates, batch_size=2)
    for image, one in zip(images, found, strict=True):
        assert one.labels == tuple(labels)
        for label, score in zip(labels, one.scores, strict=True):
            texts = [template.replace("{}", label) for template in templates]
            expected = np.mean(predictor.score([image] * 2, texts))
            assert score == pytest.approx(expected, abs=1e-3)
        assert one.best == max(zip(one.scores, labels, strict=True))[1]
        assert sum(one.probabilities) == pytest.approx(1)
        assert one.ranked[0][0] == one.best


def test_the_prior_is_the_likelihood_under_a_gray_image(predictor, images):
    plain, adjusted = (
        predictor.classify(images[0], TEXTS, templates=["{}"], matching=MatchingConfig(prior=p))
        for p in (0.0, 0.5)
    )
    blank = torch.zeros(len(TEXTS), 3, IMAGE.size, IMAGE.size)
    tokens, lengths = pad_tokens(
        [EncodeCaption(predictor.tokenizer, max_tokens=12)(text) for text in TEXTS]
    )
    prior = predictor.captioner.score(blank, tokens, lengths).numpy()
    expected = np.array(plain[0].scores) - 0.5 * prior
    np.testing.assert_allclose(adjusted[0].scores, expected, atol=1e-3)


def test_a_search_ranks_images_by_the_texts_score(predictor, images):
    scores = predictor.score(images, [TEXTS[0]] * len(images))
    found = predictor.search(TEXTS[0], images, top=3, batch_size=2)
    assert [one.index for one in found] == np.argsort(scores)[::-1][:3].tolist()
    np.testing.assert_allclose([one.score for one in found], sorted(scores)[::-1][:3], atol=1e-3)
    assert found[0].image is images[found[0].index]
    gallery = predictor.gallery(images)
    again = predictor.search(TEXTS[0], gallery, top=99)
    assert [one.index for one in again[:3]] == [one.index for one in found]
    assert len(again) == len(images)


@pytest.mark.parametrize(
    ("labels", "templates"),
    [([], ["a {}"]), (["dog"], []), (["dog"], ["a dog"]), (["x"], ["{}{}"])],
)
def test_templates_need_braces_for_the_label(labels, templates, predictor, images):
    with pytest.raises(ConfigError, match="Give at least one of each"):
        predictor.classify(images, labels, templates=templates)


def test_an_empty_gallery_is_refused(predictor):
    with pytest.raises(DataError, match="no images"):
        predictor.gallery([])


def test_bf16_scores_are_nearly_the_same(task, tokenizer, predictor, images):
    rough = Predictor(task.captioner, tokenizer, IMAGE, precision="bf16")
    exact, rounded = (one.score(images[:3], TEXTS) for one in (predictor, rough))
    assert exact != rounded
    np.testing.assert_allclose(rounded, exact, rtol=0.05)


def test_an_images_random_caption_does_not_depend_on_the_images_before_it(predictor, images):
    decoding = DecodingConfig("nucleus", max_steps=10)
    alone = predictor.captions(images, 2, decoding)
    among_others = predictor.captions([images[0], *images[2:0:-1], *images[3:]], 2, decoding)
    assert alone[3] == among_others[3]
    assert alone[1] != among_others[1]


def test_attend_samples_the_captions_that_caption_samples(predictor, images):
    decoding = DecodingConfig("nucleus", max_steps=10)
    same = [images[0]] * 3
    written = predictor.caption(same, decoding, prefix="two dogs", seed=2)
    assert len({caption.text for caption in written}) > 1
    looked = predictor.attend(same, decoding=decoding, prefix="two dogs", seed=2, batch_size=1)
    assert [one.text for one in looked] == [caption.text for caption in written]


def test_labels_that_are_given_several_times_are_refused(predictor, images):
    labels = ["dogs", "ball", "dogs", "red ball", "ball", "dogs"]
    with pytest.raises(ConfigError, match=r"(?s)6 labels .*'dogs', 'ball': given several times;"):
        predictor.classify(images[:1], labels, templates="a {}")
    (found,) = predictor.classify(images[:1], list(dict.fromkeys(labels)), templates="a {}")
    assert found.labels == ("dogs", "ball", "red ball")


def test_labels_that_the_model_cannot_tell_apart_are_refused(predictor, images):
    with pytest.raises(ConfigError, match="'Dogs' and 'dogs' have the same tokens"):
        predictor.classify(images, ["Dogs", "ball", "dogs"], templates="a {}")


def test_labels_that_the_model_does_not_read_whole_are_named_together(predictor, images):
    labels = ["dogs", "犬", "dog犬s", " ", "\u200b", f"{TEXTS[2]} left"]
    with pytest.raises(ConfigError) as raised:
        predictor.classify(images, labels, templates="a {}")
    reported = str(raised.value)
    assert "'犬', 'dog犬s': the vocabulary lacks '犬'" in reported
    assert "--tokenizer.byte_fallback" in reported
    assert "' ', '\\u200b': without a letter" in reported
    assert f"'{TEXTS[2]} left': a text of up to 1" in reported
    assert "'dogs'" not in reported
    assert "same tokens" not in reported
    with pytest.raises(ConfigError, match="'a 犬': the vocabulary lacks '犬'"):
        predictor.search("a 犬", images)


def test_unknown_characters_of_a_template_are_those_of_every_label(predictor, images):
    plain, marked = (
        predictor.classify(images[0], ["dogs", "ball"], templates=template)[0].scores
        for template in ("the {}", "the {}犬")
    )
    assert len(marked) == len(plain) == 2
    with pytest.raises(ConfigError, match="'犬': without a letter"):
        predictor.classify(images[0], ["dogs", "犬"], templates="the {}犬")


def test_arguments_of_other_types_are_refused(predictor, images):
    with pytest.raises(ConfigError, match="labels is one text, 'dogs'"):
        predictor.classify(images, "dogs")
    with pytest.raises(ConfigError, match="must be texts"):
        predictor.classify(images, [1, 2])
    with pytest.raises(ConfigError, match="'': without a letter"):
        predictor.search("", images)
    with pytest.raises(ConfigError, match="top is 0"):
        predictor.search("dogs", images, top=0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        predictor.caption(images, batch_size=0)
    calls = {
        "batch_size is 2.5": lambda: predictor.caption(images, batch_size=2.5),
        "top is 2.5": lambda: predictor.search("dogs", images, top=2.5),
        "text is None": lambda: predictor.search(None, images),
        "prefix is None": lambda: predictor.caption(images, prefix=None),
        "2.5 captions": lambda: predictor.captions(images, 2.5, DecodingConfig("nucleus")),
        r"templates \[None\]": lambda: predictor.classify(images, ["dogs"], templates=[None]),
        "prior '1'": lambda: MatchingConfig(prior="1"),
    }
    for message, call in calls.items():
        with pytest.raises(ConfigError, match=message):
            call()


def test_likelihoods_that_are_nan_are_an_error(tokenizer, images):
    captioner = small_task(tokenizer).captioner
    with torch.no_grad():
        captioner.head.output_bias[5] = float("nan")
    diverged = Predictor(captioner, tokenizer, IMAGE)
    calls = [
        lambda: diverged.caption(images),
        lambda: diverged.caption(images, DecodingConfig("nucleus", max_steps=10)),
        lambda: diverged.score(images[:1], TEXTS[:1]),
        lambda: diverged.classify(images, ["dogs", "ball"], templates="a {}"),
        lambda: diverged.search("dogs", images),
    ]
    for call in calls:
        with pytest.raises(CheckpointError, match="not numbers"):
            call()
