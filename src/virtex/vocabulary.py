"""The vocabulary of a run: trained on captions, or read from a file."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.errors import CheckpointError, ConfigError, out_of_range, raise_all
from virtex.tokens import NUM_SPECIAL
from virtex.zoo.init import open_init
from virtex.zoo.own_tokenizer import TOKENIZER_NAME, load_own_tokenizer

log = logging.getLogger("virtex")

NUM_SAMPLED, SAMPLE_SEED = 100_000, 0
"""Captions that are drawn from shards, and the random seed that draws them."""
VOCAB_SIZES = {"vocab_size": (NUM_SPECIAL + 1, 1_000_000)}


@dataclass(frozen=True)
class TokenizerConfig:
    """Options of a run's vocabulary, which is trained on its captions or read from a file."""

    vocab_size: int = 10_000
    """Largest number of pieces, including the four special tokens; few captions give fewer."""
    original: bool = False
    """Whether to lower captions to NFKD without accents, as the released code did, which damages
    other languages than English; by default NFKC with all marks."""
    tokenizer_path: Path | None = None
    """SentencePiece model to use instead of training one; `original` is the model's own."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, VOCAB_SIZES))


@dataclass(frozen=True)
class TrainTokenizerConfig:
    """Options of `virtex tokenizer`."""

    out: Path
    """The .model file to write."""
    data: SourceConfig = field(default_factory=SourceConfig)
    vocab_size: int = 10_000
    """Largest number of pieces, including the four special tokens; few captions give fewer."""
    original: bool = False
    """Whether to lower captions to NFKD without accents, as the released code did, which damages
    other languages than English; by default NFKC with all marks."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, VOCAB_SIZES))


def write_tokenizer(config: TrainTokenizerConfig) -> None:
    """Train a tokenizer on the captions of a source and write it."""
    source = open_source(config.data, split="train", needs=Needs(captions=True))
    assert source is not None  # only validation data may be missing
    _train(config, source).save(config.out)


def open_tokenizer(config: TokenizerConfig, source: Source) -> Tokenizer:
    """Read the named tokenizer, or train one on a source's captions in the main process."""
    if config.tokenizer_path is not None:
        return Tokenizer.load(config.tokenizer_path)
    trained = _train(config, source) if distributed.is_main() else None
    tokenizer = distributed.gather_objects(trained)[0]
    assert tokenizer is not None
    return tokenizer


def stored_tokenizer(run: Path) -> Tokenizer:
    """Return the vocabulary of an existing run, if need be from its weights file.

    Raises:
        CheckpointError: It is missing or damaged in both.
    """
    try:
        return load_own_tokenizer(run)
    except CheckpointError as error:
        weights = run / "weights.safetensors"
        found = open_init(str(weights)).tokenizer if weights.is_file() else None
        if found is None:
            raise CheckpointError(
                f"{error}. The run needs its own vocabulary: put a copy of {run / TOKENIZER_NAME} "
                "back, or start a new run folder."
            ) from error
        log.warning("%s; taking the vocabulary of %s", error, weights)
        if distributed.is_main():
            found.save(run / TOKENIZER_NAME)
        return found


def with_rule_of(config: TokenizerConfig, tokenizer: Tokenizer) -> TokenizerConfig:
    """Return the options with the rule by which a vocabulary normalizes captions."""
    if config.original != tokenizer.original:
        log.info(
            "the vocabulary keeps its own rule: captions %s (tokenizer.original %s)",
            "lose their accents" if tokenizer.original else "keep their accents and marks",
            str(tokenizer.original).lower(),
        )
    return replace(config, original=tokenizer.original)


def _train(config: TokenizerConfig | TrainTokenizerConfig, source: Source) -> Tokenizer:
    captions = source.sample_captions(NUM_SAMPLED, seed=SAMPLE_SEED)
    return train_tokenizer(captions, vocab_size=config.vocab_size, original=config.original)
