"""The vocabulary of a run: trained on captions, or read from a file."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from virtex import distributed
from virtex.data.example import Source
from virtex.data.source import Needs, SourceConfig, open_source
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.errors import ConfigError, out_of_range, raise_all
from virtex.tokens import NUM_SPECIAL

VOCAB_SIZES = {"vocab_size": (NUM_SPECIAL + 1, 1_000_000)}


@dataclass(frozen=True)
class TokenizerConfig:
    """Options of a run's vocabulary, which is trained on its captions or read from a file."""

    vocab_size: int = 10_000
    """Number of pieces, including the four special tokens."""
    tokenizer_path: Path | None = None
    """SentencePiece model to use instead of training one."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, VOCAB_SIZES))


@dataclass(frozen=True)
class TrainTokenizerConfig:
    """Options of `virtex tokenizer`."""

    out: Path
    """The .model file to write."""
    data: SourceConfig = field(default_factory=SourceConfig)
    vocab_size: int = 10_000
    """Number of pieces, including the four special tokens."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, VOCAB_SIZES))


def write_tokenizer(config: TrainTokenizerConfig) -> None:
    """Train a tokenizer on the captions of a source and write it."""
    source = open_source(config.data, split="train", needs=Needs(captions=True))
    assert source is not None  # only validation data may be missing
    train_tokenizer(_captions(source), vocab_size=config.vocab_size).save(config.out)


def open_tokenizer(config: TokenizerConfig, source: Source) -> Tokenizer:
    """Read the named tokenizer, or train one on a source's captions in the main process."""
    if config.tokenizer_path is not None:
        return Tokenizer.load(config.tokenizer_path)
    trained = None
    if distributed.is_main():
        trained = train_tokenizer(_captions(source), vocab_size=config.vocab_size)
    tokenizer = distributed.gather_objects(trained)[0]
    assert tokenizer is not None
    return tokenizer


def _captions(source: Source) -> Iterator[str]:
    return (caption for index in range(len(source)) for caption in source.captions(index))
