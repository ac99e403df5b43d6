"""SentencePiece models: trained, checked and applied; the only file that imports sentencepiece.

Ids are laid out as in the released vocabulary (virtex.tokens), whose models load here too. A model
says how captions are normalized: one that keeps marks is named KEEPS_MARKS in its normalizer's
specification; every other one, released, older or trained elsewhere, follows the released rule.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from virtex.data.normalization import normalize_caption, normalize_original
from virtex.errors import CheckpointError
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, SOS_ID, UNK_ID

SPECIAL_PIECES = {SOS_ID: "[SOS]", EOS_ID: "[EOS]", MASK_ID: "[MASK]"}
MAX_WORD_BYTES = 2**30
"""Most bytes of a word; SentencePiece's default silently skips those of more than 4,192."""
RESERVED = "\u2585"
"""SentencePiece's sign for unknown text; it silently skips words that hold it."""
SPACE = "\u2581"
"""SentencePiece's sign for a space, with which each word begins."""
MODEL_FIELDS = {1, 2, 3}
"""Fields of a model file: pieces, training options, normalization."""
TRAINER_FIELD, NORMALIZER_FIELD = 2, 3
LENGTH_DELIMITED = 2
"""Wire type of a protobuf field that begins with its length, as all of a model file do."""
IDENTITY = b"\x0a\x08identity"
KEEPS_MARKS = b"\x0a\x0cvirtex_marks"
"""Name of the normalizer, as the first field of its specification is written."""
COUNTED_WORDS = b"\x3a\x03tsv"
"""Training option of text in words with their numbers, as it is written in a model."""


class SentencePieces:
    """The pieces of a serialized SentencePiece model.

    Raises:
        CheckpointError: The bytes are not a model with ids 0 unknown and 1 to 3 control pieces.
    """

    suffix = ".model"

    def __init__(self, model_bytes: bytes) -> None:
        self._processor = _open_model(model_bytes)
        self.vocab_size: int = self._processor.vocab_size()
        normalizer = dict(_fields(model_bytes))[NORMALIZER_FIELD]
        self.original = not normalizer.startswith(KEEPS_MARKS)

    def normalize(self, text: str) -> str:
        """Return a caption as the vocabulary has it."""
        return normalize_original(text) if self.original else normalize_caption(text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a caption's pieces."""
        ids: list[int] = self._processor.encode(self.normalize(text))
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ordinary pieces; bytes that are no character become U+FFFD."""
        return str(self._processor.decode(ids))

    def id_to_piece(self, token_id: int) -> str:
        """Return a piece as the model writes it."""
        return str(self._processor.id_to_piece(token_id))

    def piece_bytes(self, token_id: int) -> bytes:
        """Return the text of an ordinary piece in UTF-8, or the one byte that it stands for."""
        piece = self.id_to_piece(token_id)
        if self._processor.is_byte(token_id):
            return bytes([int(piece[1:-1], 16)])  # <0xE2>
        return piece.replace(SPACE, " ").encode()


def train_bpe(
    words: Mapping[str, int],
    vocab_size: int,
    *,
    original: bool,
    byte_fallback: bool,
) -> bytes:
    """Return a serialized BPE model of words and their numbers.

    BPE never joins pieces of two words, so that it is, to the bit, the model of the whole text.
    """
    model = io.BytesIO()
    fallback: dict[str, Any] = {"byte_fallback": True} if byte_fallback else {}
    SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in words.items()),
        input_format="tsv",
        model_writer=model,
        model_type="bpe",
        normalization_rule_name="nmt_nfkc" if original else "identity",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        max_sentence_length=MAX_WORD_BYTES,
        num_threads=1,
        unk_id=UNK_ID,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        control_symbols=[SPECIAL_PIECES[token_id] for token_id in sorted(SPECIAL_PIECES)],
        minloglevel=2,
        **fallback,  # a model states all that it was given
    )
    return _as_of_text(model.getvalue(), keeps_marks=not original)


def _as_of_text(model_bytes: bytes, *, keeps_marks: bool) -> bytes:
    """Return a model as if trained on the text itself, and the identity named KEEPS_MARKS."""
    written = bytearray()
    for number, content in _fields(model_bytes):
        if number == TRAINER_FIELD:
            content = content.replace(COUNTED_WORDS, b"", 1)
        elif number == NORMALIZER_FIELD and keeps_marks:
            assert content.startswith(IDENTITY), "SentencePiece writes fields in order"
            content = KEEPS_MARKS + content.removeprefix(IDENTITY)
        written += bytes([number << 3 | LENGTH_DELIMITED]) + _varint(len(content)) + content
    return bytes(written)


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
