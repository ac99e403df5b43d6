"""SentencePiece BPE over lower-case captions: the only file that imports sentencepiece.

Ids are laid out as in the released vocabulary (virtex.tokens), whose models load here too.
"""

import io
import unicodedata
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Self

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from virtex import files
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, SOS_ID, UNK_ID

SPECIAL_PIECES = {SOS_ID: "[SOS]", EOS_ID: "[EOS]", MASK_ID: "[MASK]"}
MAX_CAPTION_BYTES = 2**30
"""Most bytes of a caption; SentencePiece's default silently skips those of more than 4,192."""
MODEL_FIELDS = {1, 2, 3}
"""Fields of a model file: pieces, training options, normalization."""


def normalize_caption(text: str) -> str:
    """Return text in lower case and NFKD, without accents, with single spaces."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).lower())
    if not text.isascii():
        text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(text.split())


class Tokenizer:
    """Captions to token ids and back; equality and pickling go by the bytes of the model.

    Args:
        model_bytes: A serialized SentencePiece model with ids 0 unknown and 1 to 3 control pieces.

    Raises:
        CheckpointError: The bytes are not such a model.
    """

    def __init__(self, model_bytes: bytes) -> None:
        self.model_bytes = model_bytes
        self._processor = _open_model(model_bytes)
        self.vocab_size: int = self._processor.vocab_size()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load a `.model` file; a CheckpointError says that it is missing or has another layout."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise CheckpointError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def save(self, path: Path | str) -> None:
        """Write the SentencePiece model atomically; Raises: see `files.write`."""
        files.write(Path(path), self.model_bytes)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a caption, which is normalized first, without start and end."""
        ids: list[int] = self._processor.encode(normalize_caption(text))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids up to the first end token, without special tokens."""
        before_end = takewhile(lambda token_id: token_id != EOS_ID, map(int, ids))
        return str(self._processor.decode([one for one in before_end if one >= NUM_SPECIAL]))

    def id_to_piece(self, token_id: int) -> str:
        """Return the piece of an id: `[SOS]` for 1; a leading `▁` marks the start of a word."""
        return str(self._processor.id_to_piece(token_id))

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.model_bytes == other.model_bytes

    def __hash__(self) -> int:
        return hash(self.model_bytes)

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self.model_bytes,)


def train_tokenizer(captions: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train a BPE vocabulary of exactly `vocab_size` pieces with special ones; deterministic.

    Raises:
        ConfigError: The captions have too few words or too many characters for this size; the
            message gives the nearest size that works.
        DataError: No caption has any text.
    """
    normal = [text for text in map(normalize_caption, captions) if text]
    if not normal:
        raise DataError("no captions to train a tokenizer on: all are empty or there are none")
    smallest = NUM_SPECIAL + len(_characters(normal))
    if vocab_size < smallest:
        raise ConfigError(
            f"vocab_size {vocab_size} is too small: the different characters of these "
            f"captions need at least {smallest}; give {smallest} or more"
        )
    tokenizer = Tokenizer(_train_bpe(normal, vocab_size))
    if len(tokenizer) < vocab_size:
        raise ConfigError(
            f"vocab_size {vocab_size} is too large for these {len(normal)} captions: they give at "
            f"most {len(tokenizer)} pieces; give {len(tokenizer)} or fewer"
        )
    return tokenizer


def _train_bpe(captions: list[str], vocab_size: int) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        max_sentence_length=MAX_CAPTION_BYTES,
        num_threads=1,
        unk_id=UNK_ID,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        control_symbols=[SPECIAL_PIECES[token_id] for token_id in sorted(SPECIAL_PIECES)],
        minloglevel=2,
    )
    return model.getvalue()


def _characters(captions: list[str]) -> set[str]:
    """Return the characters that must be pieces; a space becomes `▁`, which always is one."""
    characters: set[str] = set()
    characters.update(*captions)
    return (characters - {" "}) | {"▁"}


def _open_model(model_bytes: bytes) -> SentencePieceProcessor:
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model_bytes)
        size = processor.vocab_size()
    except RuntimeError as error:
        raise CheckpointError("not a SentencePiece model (the file is corrupt?)") from error
    if not _fields(model_bytes) >= MODEL_FIELDS:
        raise CheckpointError("a SentencePiece model without its end (the file is cut off?)")
    special_fits = size > NUM_SPECIAL and processor.unk_id() == UNK_ID
    if not special_fits or not all(processor.is_control(i) for i in SPECIAL_PIECES):
        raise CheckpointError(
            "this SentencePiece model has another layout: ids must be 0 unknown (and padding), "
            "1 start, 2 end, 3 mask, the last three control pieces; "
            "`virtex tokenizer` trains such a model"
        )
    return processor


def _fields(message: bytes) -> set[int]:
    """Return the field numbers of a protobuf message of length-delimited fields.

    They show a truncated model, which SentencePiece loads without an error.
    """
    fields, offset = set(), 0
    while offset < len(message):
        fields.add(message[offset] >> 3)
        length, shift = 0, 0
        while True:
            offset += 1
            length |= (message[offset] & 0x7F) << shift
            shift += 7
            if message[offset] < 0x80:
                break
        offset += 1 + length
    return fields
