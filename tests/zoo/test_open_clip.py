"""Contrastive runs in the layout of open_clip, loaded by it: equal tokens and equal vectors."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import tokenizers
import torch
from tokenizers.trainers import BpeTrainer

from tests.hub_stub import Hub, serving_hub, use_hub
from virtex.cli import main
from virtex.config import to_dict
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.text_encoder import TextEncoderConfig
from virtex.predict.embedder import Embedder
from virtex.predict.loading import load_embedder
from virtex.tasks.base import TaskData
from virtex.tasks.contrastive import ContrastiveConfig
from virtex.zoo.weights_file import save_weights

SLIM = BackboneConfig("resnet18", options={"layers": [1] * 4, "channels": [8, 8, 16, 16]})
TEXT = TextEncoderConfig(hidden_size=64, num_layers=2, max_tokens=12, feedforward_size=96)
CONFIG = ContrastiveConfig(embedding_size=16, text=TEXT)
TEXTS = ["a red ball on the table", "Two dogs", "the  DOGS left a ball \u2026 unknown: \u72d7", ""]
TEXTS += ["the dogs left a ball on the red table and the two dogs left a red ball"]
WORDS = ["a red ball on the table", "two dogs", "the dogs left a ball on the red table"]


def sentencepiece(*, original: bool = False, byte_fallback: bool = False) -> Tokenizer:
    size = 330 if byte_fallback else 60
    return train_tokenizer(WORDS, vocab_size=size, original=original, byte_fallback=byte_fallback)


def users_own() -> Tokenizer:
    """A tokenizer.json with special tokens of its own in the midst."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.train_from_iterator(WORDS, BpeTrainer(vocab_size=50, special_tokens=["<s>", "<unk>"]))
    return Tokenizer(backend.to_str().encode())


def write_run(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    task: ContrastiveConfig = CONFIG,
    backbone: BackboneConfig = SLIM,
    size: int = 64,
) -> Path:
    image = ImageConfig(size=size)
    torch.manual_seed(0)
    built = task.build(Backbone(backbone), TaskData(image, tokenizer))
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "bias" in name or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    config = {"backbone": to_dict(backbone), "image": to_dict(image)}
    config["task"] = {"class_path": "ContrastiveConfig", "init_args": to_dict(task)}
    folder.mkdir()
    path = folder / "weights.safetensors"
    save_weights(path, built.state_dict(), config=config, tokenizer=tokenizer, step=7)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub() as hub:
        use_hub(monkeypatch, hub, cache=tmp_path / "hub")
        yield hub


def exported(run: Path, *arguments: str) -> Path:
    out = run.parent / "out"
    command = ["export", str(run), "--format", "huggingface", "--out", str(out), "--overwrite"]
    assert main([*command, *arguments]) == 0
    return out


def assert_same(name: str, embedder: Embedder) -> None:
    """open_clip's model of that name gives the vectors of the embedder."""
    model = open_clip.create_model_from_pretrained(name)[0].eval()
    tokenize = open_clip.get_tokenizer(name)
    size = embedder.image.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        texts = model.encode_text(tokenize(TEXTS), normalize=True)
        vectors = model.encode_image(images, normalize=True)
        logits, _ = model.get_logits(images, tokenize(TEXTS))
        expected = embedder.model.embed_images(images)
    own = embedder.embed_texts(TEXTS)
    torch.testing.assert_close(texts, own, rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    scaled = embedder.model.log_scale.exp() * expected @ own.T
    bias = embedder.model.bias
    torch.testing.assert_close(
        logits, scaled if bias is None else scaled + bias, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("tokenizer", "loss"),
    [
        (sentencepiece(), "softmax"),
        (sentencepiece(original=True), "sigmoid"),
        (sentencepiece(byte_fallback=True), "softmax"),
        (users_own(), "softmax"),
    ],
    ids=["sentencepiece", "original", "bytes", "json"],
)
def test_a_pushed_run_gives_equal_vectors_in_open_clip(
    tokenizer: Tokenizer, loss: str, hub: Hub, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", tokenizer, task=replace(CONFIG, loss=loss))
    exported(run, "--push", "someone/clip")
    assert_same("hf-hub:someone/clip", load_embedder("hf-hub:someone/clip"))
    card = hub.model("someone/clip").files["README.md"].decode()
    assert "library_name: open_clip" in card
    assert 'open_clip.get_tokenizer("hf-hub:someone/clip")' in card


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 64), ("test_vit", 160)])
def test_a_folder_of_a_network_without_options_needs_no_hub(
    name: str, size: int, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", sentencepiece(), backbone=BackboneConfig(name), size=size)
    assert_same(f"local-dir:{exported(run)}", load_embedder(run))


@pytest.mark.parametrize(
    ("task", "backbone", "told"),
    [
        (replace(CONFIG, text=replace(TEXT, causal=False)), SLIM, "attends to the whole caption"),
        (CONFIG, SLIM, "has options or an image size .* give --push OWNER/NAME"),
        (CONFIG, BackboneConfig("test_convnext"), "mean over the grid of 'test_convnext'"),
    ],
    ids=["both ways", "options", "norm after the mean"],
)
def test_what_open_clip_cannot_express_is_left_out_with_the_reason(
    task: ContrastiveConfig,
    backbone: BackboneConfig,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run(tmp_path / "run", sentencepiece(), task=task, backbone=backbone)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "open_clip_config.json").write_text("of another model")
    folder = exported(run)
    with pytest.raises(AssertionError, match=f"not for open_clip: .*{told}"):
        raise AssertionError(capsys.readouterr().err)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "weights.safetensors",
    ]
    assert "open_clip" not in (folder / "README.md").read_text()


def test_words_of_many_scripts_have_the_same_tokens(tmp_path: Path) -> None:
    texts = [
        "Ein großer Hund läuft",
        "une fille à côté",
        "狗在草地上奔跑",
        "कुत्ता",
        "İstanbul",
        "a\u200bb",
    ]
    tokenizer = train_tokenizer(texts * 2, vocab_size=120)
    run = write_run(tmp_path / "run", tokenizer, backbone=BackboneConfig("test_resnet"))
    shared = tokenizers.Tokenizer.from_file(str(exported(run) / "tokenizer.json"))
    for text in [*texts, "Hund\u00adläuft", "GROSSER  hund"]:
        assert shared.encode(text).ids == [1, *tokenizer.encode(text), 2]
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == TEXT.max_tokens
