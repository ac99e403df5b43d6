"""Captions to token ids and back, by a SentencePiece model or a Hugging Face tokenizer.json."""

import codecs
import logging
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Self

from virtex import files
from virtex.data.normalization import normalize_caption, normalize_original
from virtex.data.sentencepieces import SentencePieces, train_bpe
from virtex.data.tokenizer_json import JsonPieces, is_json
from virtex.data.training_text import TrainingText
from virtex.errors import CheckpointError, ConfigError
from virtex.tokens import EOS_ID, NUM_SPECIAL

log = logging.getLogger("virtex")

MAX_FILE_BYTES = 2**26
"""Most bytes of a vocabulary's file; one of 256,000 pieces takes 34 MB as JSON."""
NO_CHARACTER = "\ufffd"
LONGEST_CHARACTER = 4
"""Most bytes of a character in UTF-8."""
NUM_BYTES, FEWEST_PIECES = 256, 2
"""Pieces that byte fallback takes, and the fewest beside them."""
MAX_CHARACTERS = 0.5
"""Largest fraction of the pieces beside the bytes that are single characters: text of the web has
more kinds of them than a vocabulary has room for."""


class Tokenizer:
    """Captions to token ids and back; equality and pickling go by the bytes of the model.

    Args:
        model_bytes: A serialized SentencePiece model with ids 0 unknown and 1 to 3 control pieces,
            or a Hugging Face tokenizer.json.

    Raises:
        CheckpointError: The bytes are no such model.
        ConfigError: They are JSON, and the package `tokenizers` is not installed.
    """

    def __init__(self, model_bytes: bytes) -> None:
        if len(model_bytes) > MAX_FILE_BYTES:
            raise CheckpointError(
                f"a vocabulary of {len(model_bytes):,} bytes; at most {MAX_FILE_BYTES:,} are read"
            )
        self.model_bytes = model_bytes
        kind = JsonPieces if is_json(model_bytes) else SentencePieces
        self._pieces: JsonPieces | SentencePieces = kind(model_bytes)
        self.vocab_size: int = self._pieces.vocab_size
        self.original: bool = self._pieces.original
        """Whether captions are normalized by the released rule, which strips marks."""
        self.suffix: str = self._pieces.suffix
        """End of the name of a file with this model: .model, or .json."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load a file; a CheckpointError says that it is missing or has another layout."""
        try:
            return cls(bytes(files.read_regular(path, limit=MAX_FILE_BYTES)))
        except OSError as error:
            raise CheckpointError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def save(self, path: Path | str) -> None:
        """Write the model atomically; Raises: see `files.write`."""
        files.write(Path(path), self.model_bytes)

    def normalize(self, text: str) -> str:
        """Return a caption as the vocabulary has it."""
        return self._pieces.normalize(text)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a caption, which is normalized first, without start and end."""
        return self._pieces.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids up to the first end token, without special tokens.

        Bytes that are no character become U+FFFD; a character whose last bytes are missing at the
        end of the text is left out.
        """
        before_end = takewhile(lambda token_id: token_id != EOS_ID, map(int, ids))
        ordinary = [one for one in before_end if one >= NUM_SPECIAL]
        text = self._pieces.decode(ordinary)
        return text.rstrip(NO_CHARACTER).rstrip() if self._is_cut(ordinary) else text

    def characters(self, ids: Iterable[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the text that tokens add, and their indices: several if they are bytes of one.

        A special token adds no text.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, indices = "", list[int]()
        for index, token_id in enumerate(ids):
            piece = b"" if token_id < NUM_SPECIAL else self._pieces.piece_bytes(token_id)
            if indices and not _continues_character(piece):
                yield text + decoder.decode(b"", final=True), tuple(indices)
                text, indices = "", []
            text += decoder.decode(piece)
            indices.append(index)
            if not decoder.getstate()[0]:
                yield text, tuple(indices)
                text, indices = "", []
        if indices:
            yield text + decoder.decode(b"", final=True), tuple(indices)

    def id_to_piece(self, token_id: int) -> str:
        """Return the piece of an id as its model writes it: `[SOS]` for 1; `▁` for a space."""
        return self._pieces.id_to_piece(token_id)

    def _is_cut(self, ids: list[int]) -> bool:
        """Whether ordinary tokens end inside a character."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token_id in ids[-LONGEST_CHARACTER:]:
            decoder.decode(self._pieces.piece_bytes(token_id))
        return decoder.getstate()[0] != b""

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.model_bytes == other.model_bytes

    def __hash__(self) -> int:
        return hash(self.model_bytes)

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self.model_bytes,)


def train_tokenizer(
    captions: Iterable[str],
    *,
    vocab_size: int,
    original: bool = False,
    byte_fallback: bool = False,
    character_coverage: float = 1.0,
) -> Tokenizer:
    """Train a BPE vocabulary of `vocab_size` pieces with special ones; deterministic.

    It is smaller where the captions give fewer pieces, which is logged. Captions are read once, and
    their distinct words kept.

    Args:
        original: Normalize captions by the released rule, which strips marks.
        byte_fallback: Write characters that are no piece as their bytes, of which each is a piece.
        character_coverage: Fraction of the text whose characters become pieces, the most frequent.

    Raises:
        ConfigError: The captions have too many characters for this size; the message gives the
            smallest size that works.
        DataError: No caption has any text.
    """
    text = TrainingText.of(captions, normalize_original if original else normalize_caption)
    num_characters = text.num_characters(character_coverage)
    if byte_fallback:
        num_characters = min(num_characters, _room_for_characters(vocab_size))
    elif vocab_size < (smallest := NUM_SPECIAL + num_characters):
        raise ConfigError(
            f"vocab_size {vocab_size} is too small: the different characters of these "
            f"captions need at least {smallest}; give {smallest} or more, or byte_fallback, which "
            "writes rare characters as bytes"
        )
    words = text.with_characters(num_characters)
    model = train_bpe(words, vocab_size, original=original, byte_fallback=byte_fallback)
    tokenizer = Tokenizer(model)
    _log_sizes(tokenizer, text, vocab_size=vocab_size, num_characters=num_characters)
    return tokenizer


def _room_for_characters(vocab_size: int) -> int:
    """Return the most characters that are pieces where others are bytes.

    Raises:
        ConfigError: There is no room beside the bytes.
    """
    room = vocab_size - NUM_SPECIAL - NUM_BYTES
    if room < FEWEST_PIECES:
        raise ConfigError(
            f"vocab_size {vocab_size} is too small: byte_fallback takes {NUM_BYTES} pieces; give "
            f"{NUM_SPECIAL + NUM_BYTES + FEWEST_PIECES} or more"
        )
    return int(room * MAX_CHARACTERS)


def _log_sizes(
    tokenizer: Tokenizer, text: TrainingText, *, vocab_size: int, num_characters: int
) -> None:
    if len(tokenizer) < vocab_size:
        log.info(
            "vocabulary: %s pieces; the captions give no more of the %s requested",
            f"{len(tokenizer):,}", f"{vocab_size:,}",
        )  # fmt: skip
    if num_characters < len(text.characters):
        log.info(
            "vocabulary: the %s most frequent of %s characters are pieces",
            f"{num_characters:,}", f"{len(text.characters):,}",
        )  # fmt: skip


def _continues_character(piece: bytes) -> bool:
    """Whether a piece begins with a byte that stands inside a character."""
    return bool(piece) and piece[0] & 0xC0 == 0x80
