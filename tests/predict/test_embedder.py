import numpy as np
import pytest
import torch
from PIL import Image

import virtex
from tests.predict.small_captioner import IMAGE, SLIM
from virtex.config import to_dict
from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.transforms import ValidationTransform, normalize
from virtex.errors import CheckpointError, ConfigError
from virtex.models.backbone import Backbone
from virtex.models.text_encoder import TextEncoderConfig
from virtex.predict.embedder import Embedder
from virtex.predict.loading import load_captioner, load_embedder, load_matcher
from virtex.predict.matching import MatchingConfig, filled, match_names
from virtex.predict.predictor import Predictor
from virtex.tasks.base import TaskConfig, TaskData
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.tasks.moco import MocoConfig
from virtex.zoo.weights_file import save_weights

TEXT = TextEncoderConfig(hidden_size=64, num_layers=1, max_tokens=12)
CONFIG = ContrastiveConfig(embedding_size=16, text=TEXT)
WORDS = ["a red ball", "two dogs on the table", "the dogs"]


def build(config: TaskConfig, tokenizer):
    torch.manual_seed(0)
    return config.build(Backbone(SLIM), TaskData(IMAGE, tokenizer)).eval()


@pytest.fixture(scope="module")
def contrastive(tokenizer):
    return build(CONFIG, tokenizer)


@pytest.fixture(scope="module")
def embedder(contrastive, tokenizer):
    return Embedder(contrastive, tokenizer, IMAGE)


def write_run(folder, config, tokenizer, *, with_tokenizer=True):
    named = {"class_path": type(config).__name__, "init_args": to_dict(config)}
    values = {"backbone": to_dict(SLIM), "image": to_dict(IMAGE), "task": named}
    folder.mkdir(exist_ok=True)
    save_weights(
        folder / "weights.safetensors", build(config, tokenizer).state_dict(), config=values,
        tokenizer=tokenizer if with_tokenizer else None, step=7,
    )  # fmt: skip
    return folder


def pixels(images):
    transform = ValidationTransform(IMAGE)
    return normalize(torch.stack([transform(Example("", image)) for image in images]))


def test_vectors_are_those_of_the_task(embedder, contrastive, tokenizer, images):
    encode = EncodeCaption(tokenizer, max_tokens=TEXT.max_tokens)
    with torch.no_grad():
        vectors = contrastive.embed_images(pixels(images))
        texts = contrastive.embed_texts(*pad_tokens([encode(text) for text in WORDS]))
    torch.testing.assert_close(embedder.embed_images(images, batch_size=2), vectors)
    torch.testing.assert_close(embedder.embed_texts(WORDS, batch_size=2), texts)
    torch.testing.assert_close(embedder.embed_texts(WORDS[0]), texts[:1])


def test_a_file_has_the_vector_of_its_pixels(embedder, images, tmp_path):
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    torch.testing.assert_close(
        embedder.embed_images(tmp_path / "image.png"), embedder.embed_images(images[0])
    )


def test_scores_are_cosine_similarities(embedder, images):
    scores = embedder.match(WORDS, MatchingConfig())(pixels(images))
    expected = [
        [float(np.dot(image, text)) for text in embedder.embed_texts(WORDS).numpy()]
        for image in embedder.embed_images(images).numpy()
    ]
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)
    assert np.abs(scores.numpy()).max() <= 1 + 1e-5


def test_no_images_and_no_texts_have_no_vectors(embedder):
    assert embedder.embed_images([]).shape == embedder.embed_texts([]).shape == (0, 16)


def test_options_of_likelihoods_are_refused_together(embedder):
    with pytest.raises(ConfigError, match=r"direction 'both' .* and prior 0\.5 "):
        embedder.match(WORDS, MatchingConfig("both", 0.5))


def test_a_name_scores_the_mean_over_the_templates(embedder, images):
    templates, batch = ("a {}", "the {} on the table"), pixels(images)
    scores = match_names(embedder, WORDS, templates, MatchingConfig())(batch)
    texts = embedder.match(filled(templates, WORDS), MatchingConfig())(batch)
    assert scores.shape == (5, 3)
    torch.testing.assert_close(scores, (texts[:, ::2] + texts[:, 1::2]) / 2)


@pytest.mark.parametrize("kind", ["embedder", "predictor"])
def test_the_order_of_names_changes_no_score(kind, images, request):
    matcher, order = request.getfixturevalue(kind), [2, 0, 1]
    config = MatchingConfig(prior=0.5 if kind == "predictor" else 0)
    names, shuffled = WORDS, [WORDS[place] for place in order]
    scores, others = (
        match_names(matcher, given, ("a {}", "{} left"), config)(pixels(images))
        for given in (names, shuffled)
    )
    torch.testing.assert_close(others, scores[:, order])
    assert not torch.allclose(scores, scores[:, order])


def test_the_loaded_embedder_is_the_saved_one(embedder, tokenizer, images, tmp_path):
    run = write_run(tmp_path / "run", CONFIG, tokenizer)
    loaded = virtex.load_embedder(run)
    assert torch.equal(loaded.embed_images(images), embedder.embed_images(images))
    assert torch.equal(loaded.embed_texts(WORDS), embedder.embed_texts(WORDS))


def test_a_run_is_matched_by_what_it_was_trained_for(run, tokenizer, tmp_path):
    assert isinstance(load_matcher(run), Predictor)
    contrastive = write_run(tmp_path / "contrastive", CONFIG, tokenizer)
    assert isinstance(load_matcher(contrastive), Embedder)
    for folder in (run, contrastive):
        with pytest.raises(ConfigError, match="has its own tokenizer"):
            load_matcher(folder, tokenizer=tokenizer)


def test_the_error_for_another_kind_of_run_says_what_loads_it(run, tokenizer, tmp_path):
    contrastive = write_run(tmp_path / "contrastive", CONFIG, tokenizer)
    with pytest.raises(CheckpointError, match=r"ContrastiveConfig.*load_embedder takes it"):
        load_captioner(contrastive)
    with pytest.raises(CheckpointError, match=r"CaptioningConfig.*load_captioner takes it"):
        load_embedder(run)
    moco = MocoConfig(dim=8, queue_size=8)
    without = write_run(tmp_path / "moco", moco, tokenizer, with_tokenizer=False)
    for load in (load_captioner, load_embedder, load_matcher):
        with pytest.raises(CheckpointError, match=r"MocoConfig.*load_backbone takes its backbone"):
            load(without)


@pytest.mark.parametrize("init", ["random", "imagenet", "bicaptioning_R_50_L1_H512"])
def test_an_init_that_is_no_run_has_no_embedder(init):
    with pytest.raises(CheckpointError, match="load_backbone"):
        load_embedder(init)


@pytest.mark.parametrize("part", ["image_projection.weight", "text_projection.weight"])
def test_vectors_that_are_nan_are_an_error(part, tokenizer, images):
    model = build(CONFIG, tokenizer)
    with torch.no_grad():
        model.get_parameter(part)[3] = float("nan")
    diverged = Embedder(model, tokenizer, IMAGE)
    with pytest.raises(CheckpointError, match="embeddings are not numbers"):
        diverged.match(WORDS, MatchingConfig())(pixels(images))
    embed = diverged.embed_images if "image" in part else diverged.embed_texts
    with pytest.raises(CheckpointError, match="Take an earlier checkpoint"):
        embed(images if "image" in part else WORDS)
