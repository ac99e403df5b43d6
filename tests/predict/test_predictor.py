import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from virtex.config import to_dict
from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.example import Example
from virtex.data.images import BadImageError
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, ValidationTransform, normalize
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.captioner import Captioner
from virtex.models.decoding import DecodingConfig
from virtex.models.textual_head import HeadConfig
from virtex.predict.loading import load_captioner
from virtex.predict.predictor import Predictor
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.zoo.legacy import to_released
from virtex.zoo.weights import save_weights

SLIM = BackboneConfig(name="resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]})
IMAGE = ImageConfig(size=48)
TASK = CaptioningConfig(head=HeadConfig(hidden_size=64, max_tokens=12))
TEXTS = ["a red ball on the table", "two dogs", "the dogs left a ball on the red table"]
DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=60)


@pytest.fixture(scope="module")
def task(tokenizer):
    """An untrained captioner whose captions differ from image to image."""
    torch.manual_seed(0)
    task = TASK.build(Backbone(SLIM), TaskData(IMAGE, tokenizer))
    head = task.captioner.head
    with torch.no_grad():
        head.embedding.words.weight.normal_(std=0.3)
        head.embedding.positions.weight.normal_()
        head.visual_projection.weight.normal_()
        for name, parameter in head.decoders.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
        head.output_bias[2] = 6.0  # the end token: captions differ in length
    return task.eval()


@pytest.fixture(scope="module")
def predictor(task, tokenizer):
    return Predictor(task.captioner, tokenizer, IMAGE)


@pytest.fixture(scope="module")
def pictures():
    """Five arrays (H, W, 3) of different sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60 + 4 * i, 80, 3), dtype=np.uint8) for i in range(5)]


def run_config(task_config=TASK, **changes):
    parts = {"backbone": SLIM, "image": IMAGE}
    named = {"class_path": type(task_config).__name__, "init_args": to_dict(task_config)}
    return {**{name: to_dict(part) for name, part in parts.items()}, "task": named, **changes}


def close(captions, others):
    """The same texts and tokens, and likelihoods up to rounding."""
    same = [(c.text, c.tokens) for c in captions] == [(c.text, c.tokens) for c in others]
    return same and np.allclose(
        [c.log_likelihood for c in captions], [c.log_likelihood for c in others], atol=1e-4
    )


def test_an_image_is_the_same_in_each_form_in_which_it_may_be_given(predictor, pictures, tmp_path):
    array = pictures[0]
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    expected = predictor.caption(array)
    assert len(expected) == 1
    forms = [path, str(path), Image.open(path), torch.from_numpy(array).permute(2, 0, 1)]
    for form in forms:
        assert close(predictor.caption(form), expected)
    assert close(predictor.caption(forms), expected * len(forms))
    assert close(predictor.caption(np.stack([array, array])), expected * 2)
    assert close(predictor.caption(torch.stack([forms[3]] * 2)), expected * 2)


def test_a_pil_image_is_turned_upright_and_laid_over_white_like_its_file(predictor, pictures):
    transparent = Image.fromarray(pictures[0]).convert("RGBA")
    transparent.putalpha(100)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures[0]).save(file, "PNG", exif=exif.tobytes())
    turned = Image.fromarray(np.rot90(pictures[0], -1))
    white = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    assert close(predictor.caption(Image.open(file)), predictor.caption(turned))
    assert close(predictor.caption(transparent), predictor.caption(white.convert("RGB")))


@pytest.mark.parametrize("strategy", ["beam", "greedy", "nucleus"])
def test_captions_do_not_depend_on_the_batch_size(strategy, predictor, pictures):
    decoding = DecodingConfig(strategy, max_steps=10)
    together = predictor.caption(pictures, decoding, seed=3)
    assert len({caption.text for caption in together}) > 1
    assert len({len(caption.tokens) for caption in together}) > 1
    assert close(predictor.caption(pictures, decoding, batch_size=2, seed=3), together)


def test_a_seed_decides_what_is_sampled(predictor, pictures):
    decoding = DecodingConfig("nucleus", max_steps=10)
    first, again, other = (predictor.caption(pictures, decoding, seed=s) for s in (0, 0, 1))
    assert first == again
    assert [c.text for c in first] != [c.text for c in other]


def test_a_captions_likelihood_is_the_score_of_its_tokens(predictor, pictures):
    captions = predictor.caption(pictures, DecodingConfig(max_steps=10))
    tokens, lengths = pad_tokens([torch.tensor([1, *caption.tokens]) for caption in captions])
    transform = ValidationTransform(IMAGE)
    images = torch.stack([transform(Example("", picture)) for picture in pictures])
    scores = predictor.captioner.score(normalize(images), tokens, lengths)
    expected = [caption.log_likelihood for caption in captions]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4)
    assert [c.text for c in captions] == [predictor.tokenizer.decode(c.tokens) for c in captions]


def test_score_is_the_sum_of_the_models_log_probabilities(predictor, pictures, tokenizer):
    scores = predictor.score(pictures[:3], TEXTS, batch_size=2)
    encode = EncodeCaption(tokenizer, max_tokens=TASK.head.max_tokens)
    for picture, text, score in zip(pictures[:3], TEXTS, scores, strict=True):
        image = normalize(ValidationTransform(IMAGE)(Example("", picture))[None])
        tokens = encode(text)[None]
        logits = predictor.captioner.logits(image, tokens, torch.tensor([tokens.shape[1]]))
        log_probs = logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])
        assert score == pytest.approx(log_probs.sum().item(), rel=1e-4)
    assert predictor.score(pictures[0], TEXTS[0]) == pytest.approx(scores[:1], rel=1e-4)


def test_the_loaded_captioner_says_what_the_saved_one_said(
    tmp_path, task, tokenizer, predictor, pictures
):
    path = tmp_path / "weights.safetensors"
    save_weights(path, task.state_dict(), config=run_config(), tokenizer=tokenizer, step=7)
    before = torch.random.get_rng_state()
    loaded = load_captioner(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.caption(pictures) == predictor.caption(pictures)
    with pytest.raises(ConfigError, match="brings its own tokenizer"):
        load_captioner(path, tokenizer=tokenizer)


def test_a_released_file_needs_the_tokenizer_that_it_was_trained_with(
    tmp_path, tokenizer, pictures
):
    torch.manual_seed(1)
    captioner = Captioner(
        Backbone(BackboneConfig("resnet18")), TASK.head, len(tokenizer), bidirectional=True
    ).eval()
    path = tmp_path / "released.pth"
    torch.save({"model": to_released(captioner.state_dict())}, path)
    tokenizer.save(tmp_path / "released.model")
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_captioner(path)
    with pytest.raises(ConfigError, match=r"has 40 pieces, .* was trained with 60"):
        load_captioner(path, tokenizer=train_tokenizer(TEXTS, vocab_size=40))
    loaded = load_captioner(path, tokenizer=tmp_path / "released.model")
    expected = Predictor(captioner, tokenizer, ImageConfig()).caption(pictures[:2])
    assert loaded.caption(pictures[:2]) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "its config is not readable: 'backbone'"),
        (run_config(backbone={"name": 3, "depth": 5}), "its config is not readable"),
        (
            run_config(task={"class_path": "os.PathLike"}),
            "only the plain name of a known class is taken",
        ),
        (
            run_config(CaptioningConfig(head=HeadConfig(hidden_size=128, max_tokens=12))),
            "does not fit the architecture: .* of another shape",
        ),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(
    config, message, tmp_path, task, tokenizer
):
    path = tmp_path / "weights.safetensors"
    save_weights(path, task.state_dict(), config=config, tokenizer=tokenizer, step=7)
    with pytest.raises(CheckpointError, match=message):
        load_captioner(path)


def test_what_is_no_image_or_no_pair_is_refused(predictor, pictures, tmp_path):
    with pytest.raises(DataError, match=r"float32 and shape \(3, 8, 8\)\. Allowed are paths"):
        predictor.caption(torch.zeros(3, 8, 8))
    with pytest.raises(DataError, match=r"shape \(8, 8, 4\)"):
        predictor.caption([np.zeros((8, 8, 4), np.uint8)])
    with pytest.raises(BadImageError, match="missing"):
        predictor.caption(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="2 images and 3 texts"):
        predictor.score(pictures[:2], TEXTS)


def test_photographs_are_captioned_from_their_files(predictor):
    folder = DATA / "coco_mini" / "val2017"
    if not folder.is_dir():
        pytest.skip(f"no photographs at {folder}")
    captions = predictor.caption(sorted(folder.glob("*.jpg"))[:3])
    assert len(captions) == 3
    assert all(np.isfinite(caption.log_likelihood) for caption in captions)
