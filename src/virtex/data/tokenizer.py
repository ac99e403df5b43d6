"""SentencePiece BPE over normalized captions: the only file that imports sentencepiece.

Ids are laid out as in the released vocabulary (virtex.tokens), whose models load here too. A model
says how captions are normalized: one that keeps marks is named KEEPS_MARKS in its normalizer's
specification; every other one, released, older or trained elsewhere, follows the released rule.
"""

import io
import logging
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Self

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from virtex import files
from virtex.data.normalization import normalize_caption, normalize_original
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, SOS_ID, UNK_ID

log = logging.getLogger("virtex")

SPECIAL_PIECES = {SOS_ID: "[SOS]", EOS_ID: "[EOS]", MASK_ID: "[MASK]"}
MAX_CAPTION_BYTES = 2**30
"""Most bytes of a caption; SentencePiece's default silently skips those of more than 4,192."""
RESERVED = "\u2585"
"""SentencePiece's sign for unknown text; it silently skips captions that hold it."""
MODEL_FIELDS = {1, 2, 3}
"""Fields of a model file: pieces, training options, normalization."""
NORMALIZER_FIELD = 3
LENGTH_DELIMITED = 2
"""Wire type of a protobuf field that begins with its length, as all of a model file do."""
IDENTITY = b"\x0a\x08identity"
KEEPS_MARKS = b"\x0a\x0cvirtex_marks"
"""Name of the normalizer, as the first field of its specification is written."""


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
        normalizer = dict(_fields(model_bytes))[NORMALIZER_FIELD]
        self.original = not normalizer.startswith(KEEPS_MARKS)
        """Whether captions are normalized by the released rule, which strips marks."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load a `.model` file; a CheckpointError says that it is missing or has another layout."""
        try:
            return cls(bytes(files.read_regular(path)))
        except OSError as error:
            raise CheckpointError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def save(self, path: Path | str) -> None:
        """Write the SentencePiece model atomically; Raises: see `files.write`."""
        files.write(Path(path), self.model_bytes)

    def normalize(self, text: str) -> str:
        """Return a caption as the vocabulary has it."""
        return normalize_original(text) if self.original else normalize_caption(text)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a caption, which is normalized first, without start and end."""
        ids: list[int] = self._processor.encode(self.normalize(text))
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


def train_tokenizer(
    captions: Iterable[str], *, vocab_size: int, original: bool = False
) -> Tokenizer:
    """Train a BPE vocabulary of `vocab_size` pieces with special ones; deterministic.

    It is smaller where the captions give fewer pieces, which is logged.

    Args:
        original: Normalize captions by the released rule, which strips marks.

    Raises:
        ConfigError: The captions have too many characters for this size; the message gives the
            smallest size that works.
        DataError: No caption has any text.
    """
    normalize = normalize_original if original else normalize_caption
    spaced = (text.replace(RESERVED, " ") for text in map(normalize, captions))
    normal = [text for text in spaced if text.strip()]
    if not normal:
        raise DataError("no captions to train a tokenizer on: all are empty or there are none")
    smallest = NUM_SPECIAL + len(_characters(normal))
    if vocab_size < smallest:
        raise ConfigError(
            f"vocab_size {vocab_size} is too small: the different characters of these "
            f"captions need at least {smallest}; give {smallest} or more"
        )
    tokenizer = Tokenizer(_train_bpe(normal, vocab_size, original=original))
    if len(tokenizer) < vocab_size:
        log.info(
            "vocabulary: %s pieces; the captions give no more of the %s requested",
            f"{len(tokenizer):,}", f"{vocab_size:,}",
        )  # fmt: skip
    return tokenizer


def _train_bpe(captions: list[str], vocab_size: int, *, original: bool) -> bytes:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(captions),
        model_writer=model,
        model_type="bpe",
        normalization_rule_name="nmt_nfkc" if original else "identity",
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
    return model.getvalue() if original else _named_keeps_marks(model.getvalue())


def _named_keeps_marks(model_bytes: bytes) -> bytes:
    """Return a model whose normalizer is the identity, with the name KEEPS_MARKS in its place."""
    named = bytearray()
    for number, content in _fields(model_bytes):
        if number == NORMALIZER_FIELD:
            assert content.startswith(IDENTITY), "SentencePiece writes fields in order"
            content = KEEPS_MARKS + content.removeprefix(IDENTITY)
        named += bytes([number << 3 | LENGTH_DELIMITED]) + _varint(len(content)) + content
    return bytes(named)


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
    if not {number for number, _ in _fields(model_bytes)} >= MODEL_FIELDS:
        raise CheckpointError("a SentencePiece model without its end (the file is cut off?)")
    special_fits = size > NUM_SPECIAL and processor.unk_id() == UNK_ID
    if not special_fits or not all(processor.is_control(i) for i in SPECIAL_PIECES):
        raise CheckpointError(
            "this SentencePiece model has another layout: ids must be 0 unknown (and padding), "
            "1 start, 2 end, 3 mask, the last three control pieces; "
            "`virtex tokenizer` trains such a model"
        )
    return processor


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a protobuf message of length-delimited fields.

    They show a truncated model, which SentencePiece loads without an error.

    Raises:
        CheckpointError: The message has other fields, or is cut off.
    """
    offset = 0
    while offset < len(message):
        key, offset = _read_varint(message, offset)
        length, offset = _read_varint(message, offset)
        content = message[offset : offset + length]
        if key & 7 != LENGTH_DELIMITED or len(content) < length:
            raise CheckpointError("a SentencePiece model that is damaged or cut off")
        yield key >> 3, content
        offset += length


def _read_varint(message: bytes, offset: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, and the offset behind it; 0 at the end."""
    number, shift = 0, 0
    while offset < len(message):
        number |= (message[offset] & 0x7F) << shift
        shift, offset = shift + 7, offset + 1
        if message[offset - 1] < 0x80:
            break
    return number, offset


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first, as protobuf writes it."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
