"""The vocabulary of a run: from all training captions, with the rule of its own file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.data.shards.ranged_server import BUCKET, RangedServer
from tests.data.sources.manifests import write_shards
from tests.small_run import small_config
from virtex import cli
from virtex.data.caption_sample import (
    TooManyCaptionsError,
    all_captions,
    drawn_captions,
    drawn_references,
)
from virtex.data.example import Example, Source
from virtex.data.shards.index import index_shards
from virtex.data.shards.index_options import IndexConfig
from virtex.data.source import SourceConfig, open_source
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.errors import ConfigError
from virtex.pretrain import parse_pretrain, pretrain
from virtex.tokens import UNK_ID
from virtex.vocabulary import (
    TokenizerConfig,
    TrainTokenizerConfig,
    open_tokenizer,
    write_tokenizer,
)

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


class Counted(Source):
    """Images with captions that name them: as many for each as a list says."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = counts

    def __len__(self) -> int:
        return len(self.counts)

    def captions(self, index: int) -> tuple[str, ...]:
        return tuple(f"{index} {number}" for number in range(self.counts[index]))

    def __getitem__(self, index: int) -> Example:
        raise AssertionError("captions alone are read")

    def identity(self) -> dict[str, str | int]:
        return {}


@pytest.mark.parametrize("counts", [[1] * 1000, [5] * 90, [1, 9] * 70, [0, 7] * 100])
def test_a_sample_is_spread_over_all_of_the_data_and_always_the_same(counts: list[int]) -> None:
    source = Counted(counts)
    drawn = list(drawn_captions(source, most=100))
    assert drawn == list(drawn_captions(source, most=100))
    assert len(set(drawn)) == len(drawn) <= 100
    images = [int(caption.split()[0]) for caption in drawn]
    assert images == sorted(images)
    tenths = Counter(10 * image // len(counts) for image in images)
    assert min(tenths.values()) >= 3
    assert len(tenths) == 10


def test_references_are_those_of_images_from_all_parts() -> None:
    found = drawn_references(Counted([1, 2] * 50), most=10)
    assert [captions[0].split()[0] for captions in found] == [str(10 * i) for i in range(10)]
    assert drawn_references(Counted([1, 3]), most=10) == [("0 0",), ("1 0", "1 1", "1 2")]


def test_a_small_source_gives_all_its_captions() -> None:
    source = Counted([1, 3, 0, 2])
    assert len(list(all_captions(source, most=6))) == 6
    for most in (3, 5):
        with pytest.raises(TooManyCaptionsError):
            list(all_captions(source, most=most))


def test_a_vocabulary_is_trained_on_a_sample_of_many_captions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Counted([1] * 300)
    with caplog.at_level("INFO"):
        few = open_tokenizer(TokenizerConfig(vocab_size=100, sample=50), source)
    assert "trained on a sample of 50 captions" in caplog.text
    assert few == train_tokenizer(drawn_captions(source, most=50), vocab_size=100)
    whole = open_tokenizer(TokenizerConfig(vocab_size=100, sample=300), source)
    assert whole == open_tokenizer(TokenizerConfig(vocab_size=100), source) != few


def test_options_of_the_vocabulary_reach_it(tmp_path: Path) -> None:
    flags = ["--byte_fallback", "true", "--character_coverage", "0.99", "--vocab_size", "400"]
    path = str(tmp_path / "a.model")
    assert cli.main(["tokenizer", "--data.num_images", "20", *flags, "--out", path]) == 0
    assert UNK_ID not in Tokenizer.load(path).encode("Собака 🐕")
    with pytest.raises(ConfigError, match=r"(?s)sample 0.*character_coverage 2"):
        TokenizerConfig(sample=0, character_coverage=2)


@pytest.mark.parametrize("has_sample", [True, False])
def test_the_vocabulary_of_shards_in_a_store_is_that_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_sample: bool
) -> None:
    write_shards(tmp_path / "store", [9, 7, 5])
    with RangedServer(tmp_path / "store") as server:
        server.set_environment(monkeypatch)
        for name, root in (("here", str(tmp_path / "store")), ("afar", f"s3://{BUCKET}")):
            manifest = index_shards(IndexConfig(root, tmp_path / name), processes=1)
            if not has_sample:
                (manifest / "captions.jsonl.gz").unlink()
            server.requests.clear()
            data = SourceConfig(source="webdataset", root=manifest, cache_dir=tmp_path / "cache")
            out = tmp_path / f"{name}.model"
            write_tokenizer(TrainTokenizerConfig(vocab_size=40, out=out, data=data))
        assert server.count("GET", ".tar") == (0 if has_sample else 3)
    assert Tokenizer.load(out) == Tokenizer.load(tmp_path / "here.model")
