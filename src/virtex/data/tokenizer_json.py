"""A Hugging Face tokenizer.json as a vocabulary; the only file that imports tokenizers.

The file's ordinary tokens keep their order behind this package's special ones. Its own special
tokens have no place: they are never encoded, and what it cannot encode is the unknown token. What
it pads, truncates or adds at both ends is left out: captions have this package's start and end.

The file is not trusted: it is plain data to `tokenizers`, without code, of bounded size and growth.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from virtex.data.normalization import UNENCODABLE
from virtex.errors import CheckpointError, ConfigError
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, SOS_ID, UNK_ID

NAMES = {UNK_ID: "<unk>", SOS_ID: "[SOS]", EOS_ID: "[EOS]", MASK_ID: "[MASK]"}
MAX_TOKENS = 1_000_000
MAX_GROWTH = 2**16
"""Most characters that all of the file's replacements together may make of one."""
LEFT_OUT = ("truncation", "padding", "post_processor")
"""Parts of the file that are not used."""
TRIAL = "a dog 狗 🐕"
SPACE = "\u2581"
"""Metaspace's sign for a space."""
BYTE = re.compile("<0x([0-9A-F]{2})>")
"""Token of one byte, with byte fallback."""
VISIBLE = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTE_LEVEL = {chr(byte): byte for byte in VISIBLE} | {
    chr(256 + rank): byte for rank, byte in enumerate(sorted({*range(256)} - {*VISIBLE}))
}
"""Byte that each character stands for in byte-level BPE; after GPT-2's `bytes_to_unicode`."""
MISSING = (
    "a Hugging Face tokenizer.json needs the package tokenizers: pip install tokenizers, or give a "
    "SentencePiece model"
)


def is_json(model_bytes: bytes) -> bool:
    """Whether a vocabulary is JSON; a SentencePiece model begins with another byte."""
    return model_bytes.startswith(b"{")


def ordinary_ids(document: dict[str, Any]) -> tuple[list[int], int]:
    """Return the ids of a file's ordinary tokens in order, and the first id behind all of its own.

    Raises:
        ConfigError: The package `tokenizers` is not installed.
    """
    backend = _open({**document, **dict.fromkeys(LEFT_OUT)})
    ids = set(backend.get_vocab(with_added_tokens=True).values())
    return sorted(ids - _special_ids(backend, document)), max(ids) + 1


class JsonPieces:
    """The pieces of a Hugging Face tokenizer.json.

    Raises:
        CheckpointError: It cannot be used; says why.
        ConfigError: The package `tokenizers` is not installed.
    """

    suffix = ".json"
    original = False

    def __init__(self, model_bytes: bytes) -> None:
        document = _checked(model_bytes)
        self._backend = _open(document)
        self._spelling = _Spelling(document)
        special = _special_ids(self._backend, document)
        ordinary = sorted(set(self._backend.get_vocab(with_added_tokens=True).values()) - special)
        if not 0 < len(ordinary) <= MAX_TOKENS:
            raise CheckpointError(
                f"a tokenizer.json of {len(ordinary):,} tokens; at least 1 and at most "
                f"{MAX_TOKENS:,} are allowed"
            )
        self.vocab_size = NUM_SPECIAL + len(ordinary)
        self._own = {number: NUM_SPECIAL + rank for rank, number in enumerate(ordinary)}
        self._theirs = np.asarray(ordinary, np.int64)
        self.encode(TRIAL)

    def normalize(self, text: str) -> str:
        """Return a caption as the vocabulary has it: without what it cannot encode."""
        return self.decode([one for one in self.encode(text) if one >= NUM_SPECIAL])

    def encode(self, text: str) -> list[int]:
        """Return the ids of a caption's tokens; spaces count as one."""
        spaced = " ".join(UNENCODABLE.sub("\ufffd", text).split())
        with _refusal("cannot encode a caption"):
            ids = self._backend.encode(spaced, add_special_tokens=False).ids
        return [self._own.get(number, UNK_ID) for number in ids]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ordinary tokens; bytes that are no character become U+FFFD."""
        theirs = [int(self._theirs[one - NUM_SPECIAL]) for one in ids]
        with _refusal("cannot decode tokens"):
            text = str(self._backend.decode(theirs, skip_special_tokens=False))
        return self._spelling.joined(text).strip()

    def id_to_piece(self, token_id: int) -> str:
        """Return a token as the file writes it."""
        if token_id < NUM_SPECIAL:
            return NAMES[token_id]
        return str(self._backend.id_to_token(int(self._theirs[token_id - NUM_SPECIAL])))

    def piece_bytes(self, token_id: int) -> bytes:
        """Return the text of an ordinary token in UTF-8, with the space at its side, if any."""
        return self._spelling.bytes_of(self.id_to_piece(token_id))


class _Spelling:
    """How the tokens of a tokenizer.json spell text: their bytes, and the spaces between them."""

    def __init__(self, document: dict[str, Any]) -> None:
        model, decoder = document["model"], document.get("decoder")
        kinds = {str(node.get("type")) for node in _nodes(decoder)}
        self._is_byte_level = "ByteLevel" in kinds
        self._suffix = str(model.get("end_of_word_suffix") or "")
        self._prefix = str(model.get("continuing_subword_prefix") or "")
        self._is_spaced = not self._suffix and (decoder is None or "WordPiece" in kinds)
        """Whether a space stands before each token without the prefix."""

    def joined(self, text: str) -> str:
        """Return decoded text with a space for each end of a word that the decoder left."""
        return " ".join(text.replace(self._suffix, " ").split()) if self._suffix else text

    def bytes_of(self, token: str) -> bytes:
        """Return the text of a token in UTF-8, with the space at its side, if any."""
        if byte := BYTE.fullmatch(token):
            return bytes([int(byte[1], 16)])
        end = b" " if self._suffix and token.endswith(self._suffix) else b""
        text = token.removesuffix(self._suffix)
        if self._is_spaced:
            is_inside = self._prefix and text.startswith(self._prefix)
            text = text.removeprefix(self._prefix) if is_inside else f" {text}"
        if self._is_byte_level and all(letter in BYTE_LEVEL for letter in text):
            return bytes(BYTE_LEVEL[letter] for letter in text) + end
        return text.replace(SPACE, " ").encode() + end


def _checked(model_bytes: bytes) -> dict[str, Any]:
    """Return the parts of a file that are used, once they are known to be bounded."""
    try:
        document = json.loads(model_bytes)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("not a tokenizer.json (the file is damaged or cut off?)") from error
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise CheckpointError("JSON without a `model`: it is no Hugging Face tokenizer.json")
    growth = 1
    for node in _nodes([document.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]):
        growth = min(growth * _growth(node), MAX_GROWTH + 1)
    if growth > MAX_GROWTH:
        raise CheckpointError(
            f"a tokenizer.json whose replacements make over {MAX_GROWTH:,} characters of one"
        )
    return {**document, **dict.fromkeys(LEFT_OUT)}


def _nodes(part: object) -> Iterator[dict[str, Any]]:
    """Yield all mappings in a part of the file."""
    parts = [part]
    while parts:
        one = parts.pop()
        if isinstance(one, dict):
            yield one
        if isinstance(one, dict | list):
            parts += one.values() if isinstance(one, dict) else one


def _growth(node: dict[str, Any]) -> int:
    """Return the most characters that a step, a replacement perhaps, makes of one."""
    content, pattern = node.get("content", node.get("prepend")), node.get("pattern")
    if not isinstance(content, str) or not content:
        return 1
    literal = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(literal, str) and literal:
        return -(-len(content) // len(literal))
    return 1 + len(content)  # a regular expression may match nothing, before each character


def _open(document: dict[str, Any]) -> Any:
    """Return the tokenizer of a file."""
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(MISSING) from error
    with _refusal("cannot be opened"):
        backend = tokenizers.Tokenizer.from_str(json.dumps(document))
    backend.encode_special_tokens = True  # their text in a caption is text
    return backend


def _special_ids(backend: Any, document: dict[str, Any]) -> set[int]:
    """Return the ids of the file's special tokens, the unknown one among them."""
    added = backend.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    model = document["model"]
    unknown, unknown_id = model.get("unk_token"), model.get("unk_id")
    if isinstance(unknown, str):
        unknown_id = backend.token_to_id(unknown)
    return special | ({unknown_id} if isinstance(unknown_id, int) else set())


@contextlib.contextmanager
def _refusal(what: str) -> Iterator[None]:
    """Turn the library's errors, a panic of its Rust code among them, into a CheckpointError."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"a tokenizer.json that {what}: {str(error)[:200]}") from error
