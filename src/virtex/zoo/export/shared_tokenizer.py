"""A run's vocabulary as a tokenizer.json that transformers, and so open_clip, reads.

Of a SentencePiece model, ids stay. A tokenizer.json of the user's keeps its own ids, and start and
end get new ones behind them: the rows of the token embedding are put in that order. Captions get
start and end, as in training.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from virtex.data.normalization import INVISIBLE
from virtex.data.tokenizer import Tokenizer
from virtex.data.tokenizer_json import JsonPieces, ordinary_ids
from virtex.errors import ConfigError
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, PAD_ID, SOS_ID, UNK_ID

SPACE = "\u2581"
NAMES = {UNK_ID: "<unk>", SOS_ID: "[SOS]", EOS_ID: "[EOS]", MASK_ID: "[MASK]"}
START, END, PAD = "<virtex_start>", "<virtex_end>", "<virtex_pad>"
"""Tokens added to a tokenizer.json of the user's."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
TRIALS = (
    "A dog  runs; two CATS sit, on a red-and-white bench (near 3 trees) at 10:45 p.m.!",
    "Ein großer Hund läuft über die Brücke. Une fille à côté d'un garçon, là-bas",
    "狗在草地上奔跑 パンダ कुत्ता поезд قطار",
)
"""Texts by which a converted vocabulary is compared with its original."""


@dataclass(frozen=True)
class SharedTokenizer:
    """A tokenizer.json, and where its ids lie in a run's token embedding."""

    document: dict[str, Any]
    start: str
    end: str
    pad: str
    unknown: str
    """Names of the special tokens."""
    end_id: int
    rows: list[int]
    """For each id its row in the token embedding of the run."""

    def files(self, *, max_tokens: int) -> dict[str, str]:
        """Return the contents of tokenizer.json and tokenizer_config.json."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.start,
            "eos_token": self.end,
            "pad_token": self.pad,
            "unk_token": self.unknown,
            "model_max_length": max_tokens,
            "clean_up_tokenization_spaces": False,
        }
        return {
            "tokenizer.json": json.dumps(self.document, ensure_ascii=False),
            "tokenizer_config.json": json.dumps(config, indent=2),
        }


def share(tokenizer: Tokenizer) -> SharedTokenizer:
    """Return a vocabulary in the form that transformers reads.

    Raises:
        ConfigError: It cannot be put so that texts get the same tokens, or the package tokenizers
            is not installed.
    """
    if tokenizer.suffix == ".json":
        return _of_json(json.loads(tokenizer.model_bytes))
    shared = _of_sentencepiece(tokenizer)
    pieces = JsonPieces(json.dumps(shared.document).encode())
    differing = [text for text in TRIALS if pieces.encode(text) != tokenizer.encode(text)]
    if differing:
        raise ConfigError(
            f"as a tokenizer.json its vocabulary gives other tokens, as of {differing[0]!r}"
        )
    return shared


def _of_json(document: dict[str, Any]) -> SharedTokenizer:
    ordinary, size = ordinary_ids(document)
    start_id, end_id, pad_id = range(size, size + 3)
    rows = [UNK_ID] * (size + 3)
    for rank, number in enumerate(ordinary):
        rows[number] = NUM_SPECIAL + rank
    rows[start_id], rows[end_id], rows[pad_id] = SOS_ID, EOS_ID, PAD_ID
    added = list(document.get("added_tokens") or [])
    names = {start_id: START, end_id: END, pad_id: PAD}
    document = {
        **document,
        "truncation": None,
        "padding": None,
        "added_tokens": [*added, *map(_special, names, names.values())],
        "post_processor": _with_ends(START, start_id, END, end_id),
    }
    unknown = document["model"].get("unk_token") or PAD
    return SharedTokenizer(document, START, END, PAD, str(unknown), end_id, rows)


def _of_sentencepiece(tokenizer: Tokenizer) -> SharedTokenizer:
    pieces = [tokenizer.id_to_piece(one) for one in range(tokenizer.vocab_size)]
    vocabulary = {**dict(zip(pieces, range(len(pieces)), strict=True)), NAMES[UNK_ID]: UNK_ID}
    del vocabulary[pieces[UNK_ID]]
    vocabulary[NAMES[UNK_ID]] = UNK_ID
    metaspace = {"replacement": SPACE, "prepend_scheme": "always", "split": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(number, name) for number, name in sorted(NAMES.items())],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(tokenizer.original)},
        "pre_tokenizer": {"type": "Metaspace", **metaspace},
        "post_processor": _with_ends(NAMES[SOS_ID], SOS_ID, NAMES[EOS_ID], EOS_ID),
        "decoder": {"type": "Metaspace", **metaspace},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": NAMES[UNK_ID],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": any(BYTE.fullmatch(piece) for piece in pieces),
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(pieces),
        },
    }
    start, end, unknown = NAMES[SOS_ID], NAMES[EOS_ID], NAMES[UNK_ID]
    rows = list(range(len(pieces)))
    return SharedTokenizer(document, start, end, unknown, unknown, EOS_ID, rows)


def _merges(pieces: list[str]) -> list[list[str]]:
    """Return the pairs of pieces that BPE joins, by the rank of what they make."""
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    merges = []
    for piece in pieces[NUM_SPECIAL:]:
        if BYTE.fullmatch(piece):
            continue
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        merges += [list(pair) for pair in sorted(known, key=lambda pair: ranks[pair[0]])]
    return merges


def _normalizers(original: bool) -> list[dict[str, Any]]:
    """Return the steps of `normalize_caption`, or of the released rule, that the format has."""
    if original:
        steps = ("NFKD", "Lowercase", "NFKD", "StripAccents", "NFKC")
        form: list[dict[str, Any]] = [{"type": name} for name in steps]
    else:
        form = [
            _replaced(f"[{INVISIBLE}]", ""),
            {"type": "NFC"},
            _replaced("[\\x{00}-\\x{1f}\\x{7f}-\\x{9f}\\x{200b}\\x{2581}]", " "),
            _replaced("İ", "i"),
            _replaced("…", "..."),
            {"type": "Lowercase"},
        ]
    return [
        *form,
        _replaced("\\s+", " "),
        {"type": "Strip", "strip_left": True, "strip_right": True},
    ]


def _replaced(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _special(number: int, name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": name, **flags, "special": True}


def _with_ends(start: str, start_id: int, end: str, end_id: int) -> dict[str, Any]:
    """Return the step that puts start and end around a caption."""
    first, last = ({"SpecialToken": {"id": name, "type_id": 0}} for name in (start, end))
    text, other = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    ids = {start: start_id, end: end_id}
    return {
        "type": "TemplateProcessing",
        "single": [first, text, last],
        "pair": [first, text, last, other, last],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()
        },
    }
