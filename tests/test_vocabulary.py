"""The vocabulary of a run: from all training captions, with the rule of its own file."""

from pathlib import Path

import pytest
import yaml

from tests.small_run import small_config
from virtex import cli
from virtex.data.source import SourceConfig, open_source
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.pretrain import parse_pretrain, pretrain
from virtex.vocabulary import TokenizerConfig, open_tokenizer

FEW = ("--run.num_steps", "1", "--num_samples", "0", "--data.num_val_images", "0")


def test_parts_of_the_data_share_the_vocabulary_of_all(tmp_path: Path) -> None:
    whole = small_config(tmp_path / "whole", *FEW)
    source = open_source(whole.data, split="train")
    assert source is not None
    vocabulary = open_tokenizer(whole.tokenizer, source)
    part = small_config(tmp_path / "part", *FEW, "--data.share", "0.5", "--data.num_captions", "1")
    pretrain(part)
    assert Tokenizer.load(tmp_path / "part" / "tokenizer.model") == vocabulary
    few = open_source(part.data, split="train")
    assert few is not None
    assert open_tokenizer(whole.tokenizer, few) != vocabulary


def stored_rule(run: Path) -> bool:
    return yaml.safe_load((run / "config.yaml").read_text())["tokenizer"]["original"]


@pytest.mark.parametrize("original", [False, True])
def test_a_named_vocabulary_keeps_its_rule_and_the_run_says_so(
    tmp_path: Path, original: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, run = tmp_path / "one.model", tmp_path / "run"
    train_tokenizer(["a läuft dog on grass"], vocab_size=40, original=original).save(path)
    flags = ["--tokenizer.tokenizer_path", str(path)]
    with caplog.at_level("INFO"):
        pretrain(small_config(run, *FEW, *flags, "--tokenizer.original", str(not original)))
    assert "the vocabulary keeps its own rule: captions" in caplog.text
    assert stored_rule(run) == Tokenizer.load(run / "tokenizer.model").original == original


def test_a_run_from_before_the_rule_was_an_option_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(small_config(run, *FEW, "--tokenizer.original", "true"))
    options = yaml.safe_load((run / "config.yaml").read_text())
    del options["tokenizer"]["original"]
    (run / "config.yaml").write_text(yaml.safe_dump(options))
    for flags in ([], ["--tokenizer.original", "true"]):
        assert pretrain(parse_pretrain(["--out", str(run), *flags])).step == 1
        assert stored_rule(run)


def test_the_papers_recipes_take_the_released_rule(tmp_path: Path) -> None:
    needed = ["--out", str(tmp_path), "--data.root", "x"]
    assert parse_pretrain(["--config", "base", *needed]).tokenizer.original
    assert not parse_pretrain(["--config", "gpu_small", *needed]).tokenizer.original
    assert not TokenizerConfig().original


def test_a_tokenizer_is_as_large_as_its_captions_give(tmp_path: Path) -> None:
    flags = ["--data.num_images", "20", "--vocab_size", "10000"]
    assert cli.main(["tokenizer", *flags, "--out", str(tmp_path / "a.model")]) == 0
    source = open_source(SourceConfig(num_images=20), split="train")
    assert source is not None
    tokenizer = open_tokenizer(TokenizerConfig(), source)
    assert tokenizer == Tokenizer.load(tmp_path / "a.model")
    assert len(tokenizer) < 10_000
