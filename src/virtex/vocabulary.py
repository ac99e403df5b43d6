"""The vocabulary of a run: trained on captions, or read from a file."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path

from virtex import distributed, files
from virtex.data.caption_sample import SEED, TooManyCaptionsError, all_captions, drawn_captions
from virtex.data.example import Source
from virtex.data.shards.remote_visit import visited
from virtex.data.source import CAPTIONS, SourceConfig, open_source, resolved
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.errors import CheckpointError, ConfigError, out_of_range, raise_all
from virtex.tokens import NUM_SPECIAL
from virtex.zoo.init import open_init
from virtex.zoo.own_tokenizer import load_own_tokenizer, own_path, save_own_tokenizer

log = logging.getLogger("virtex")

RANGES = {
    "vocab_size": (NUM_SPECIAL + 1, 1_000_000),
    "sample": (1, 1_000_000_000),
    "character_coverage": (0.5, 1),
}


@dataclass(frozen=True)
class VocabularyOptions:
    """Options of a vocabulary that is trained on captions."""

    vocab_size: int = 10_000
    """Largest number of pieces, including the four special tokens; few captions give fewer."""
    original: bool = False
    """Whether to lower captions to NFKD without accents, as the released code did, which damages
    other languages than English; by default NFKC with all marks."""
    sample: int = 2_000_000
    """Most captions to train on; of more, some are drawn from all parts of the data, always the
    same."""
    byte_fallback: bool = False
    """Whether to write characters that are no piece as their bytes, of which each is a piece, so
    that no text is unknown; by default they are the unknown token."""
    character_coverage: float = 1.0
    """Fraction of the text, 0.5 to 1, whose characters are pieces, the most frequent ones; with
    byte_fallback at most half of the pieces beside the bytes are single characters."""

    def __post_init__(self) -> None:
        raise_all(ConfigError, "the vocabulary cannot work", out_of_range(self, RANGES))


@dataclass(frozen=True)
class TokenizerConfig(VocabularyOptions):
    """Options of a run's vocabulary, which is trained on its captions or read from a file."""

    tokenizer_path: Path | None = None
    """SentencePiece model, or a Hugging Face tokenizer.json, to use instead of training a
    vocabulary; the other options are then the file's own."""


def trained_options(config: TokenizerConfig) -> list[str]:
    """Return the names of the options that are set for a vocabulary to be trained."""
    names = [field.name for field in fields(VocabularyOptions) if field.name != "original"]
    return [name for name in names if getattr(config, name) != getattr(TokenizerConfig, name)]


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig(VocabularyOptions):
    """Options of `virtex tokenizer`."""

    out: Path
    """The .model file to write."""
    data: SourceConfig = field(default_factory=SourceConfig)


def write_tokenizer(config: TrainTokenizerConfig) -> None:
    """Train a tokenizer on the captions of a source and write it.

    Raises:
        ConfigError: `out` cannot be written, or the options cannot work.
        DataError: The captions cannot be read.
    """
    files.check_out(config.out, is_file=True)
    data = resolved(config.data, CAPTIONS)
    with visited(data, at_once=1, in_order=False) as remote:
        source = open_source(data, split="train", needs=CAPTIONS, remote=remote)
        assert source is not None  # only validation data may be missing
        trained = _train(config, source)
    trained.save(config.out)


def open_tokenizer(
    config: TokenizerConfig, source: Source, *, names: Sequence[str] = ()
) -> Tokenizer:
    """Read the named tokenizer, or train one on a source's captions in the main process.

    Args:
        names: Other texts to train on, such as the names of classes.
    """
    if config.tokenizer_path is not None:
        return Tokenizer.load(config.tokenizer_path)
    trained = _train(config, source, names) if distributed.is_main() else None
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
                f"{error}. The run needs its own vocabulary: put a copy of {own_path(run)} "
                "back, or start a new run folder."
            ) from error
        log.warning("%s; taking the vocabulary of %s", error, weights)
        if distributed.is_main():
            save_own_tokenizer(found, run)
        return found


def with_rule_of(config: TokenizerConfig, tokenizer: Tokenizer) -> TokenizerConfig:
    """Return the options with the rule by which a vocabulary normalizes captions."""
    if config.original != tokenizer.original:
        kept = "follow its file" if tokenizer.suffix == ".json" else "keep their accents and marks"
        log.info(
            "the vocabulary keeps its own rule: captions %s (tokenizer.original %s)",
            "lose their accents" if tokenizer.original else kept,
            str(tokenizer.original).lower(),
        )
    return replace(config, original=tokenizer.original)


def _train(config: VocabularyOptions, source: Source, names: Sequence[str] = ()) -> Tokenizer:
    if source.shard_counts is not None:
        drawn = source.sample_captions(config.sample, seed=SEED)
        return _trained_on(chain(names, drawn), config)
    try:
        return _trained_on(chain(names, all_captions(source, most=config.sample)), config)
    except TooManyCaptionsError:
        log.info(
            "vocabulary: trained on a sample of %s captions (tokenizer.sample)",
            f"{config.sample:,}",
        )
        return _trained_on(chain(names, drawn_captions(source, most=config.sample)), config)


def _trained_on(captions: Iterable[str], config: VocabularyOptions) -> Tokenizer:
    return train_tokenizer(
        captions,
        vocab_size=config.vocab_size,
        original=config.original,
        byte_fallback=config.byte_fallback,
        character_coverage=config.character_coverage,
    )
