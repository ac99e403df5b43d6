"""A Hugging Face tokenizer.json as the vocabulary."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_run import small_config
from virtex.data.concept_words import find_words, read_words
from virtex.data.tokenizer import Tokenizer
from virtex.errors import CheckpointError, ConfigError
from virtex.predict.loading import load_captioner
from virtex.pretrain import pretrain
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, SOS_ID, UNK_ID
from virtex.zoo.own_tokenizer import load_own_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

CAPTIONS = ["a dog runs past a red car, twice", "two cats sleep on the grass", "un café à côté"] * 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BYTES = pre_tokenizers.ByteLevel.alphabet()
SHOWN = {"show_progress": False, "vocab_size": 400}


def word_piece() -> Any:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(cleanup=True)
    made.train_from_iterator(CAPTIONS, trainers.WordPieceTrainer(special_tokens=SPECIAL, **SHOWN))
    return made


def byte_level() -> Any:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    options = {"special_tokens": ["<|endoftext|>"], "initial_alphabet": BYTES, **SHOWN}
    made.train_from_iterator(CAPTIONS, trainers.BpeTrainer(**options))
    return made


def suffixed() -> Any:
    made = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    options = {"special_tokens": SPECIAL, "end_of_word_suffix": "</w>", **SHOWN}
    made.train_from_iterator(CAPTIONS, trainers.BpeTrainer(**options))
    return made


def unigram() -> Any:
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    options = {"special_tokens": ["<unk>", "</s>"], "unk_token": "<unk>", **SHOWN}
    made.train_from_iterator(CAPTIONS, trainers.UnigramTrainer(**options))
    return made


def word_level() -> Any:
    made = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(CAPTIONS, trainers.WordLevelTrainer(special_tokens=SPECIAL, **SHOWN))
    return made


def byte_fallback() -> Any:
    """A tokenizer such as Llama's."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁dogcatrun", "é"]
    vocabulary = {token: number for number, token in enumerate(letters)}
    vocabulary |= {"do": len(letters), "dog": len(letters) + 1, "▁dog": len(letters) + 2}
    merges = [("d", "o"), ("do", "g"), ("▁", "dog")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made = tokenizers.Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return made


KINDS = (word_piece, byte_level, suffixed, unigram, word_level, byte_fallback)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return opened(request.param)


def opened(make: Callable[[], Any]) -> Tokenizer:
    return Tokenizer(make().to_str().encode())


def test_captions_come_back_by_ids_behind_the_special_ones(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" a  dog\nruns")
    assert min(ids) >= NUM_SPECIAL
    assert max(ids) < tokenizer.vocab_size == len(tokenizer)
    assert tokenizer.decode([SOS_ID, *ids, EOS_ID, *ids]) == "a dog runs"
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy == tokenizer
    assert copy.encode("a dog") == tokenizer.encode("a dog")


def test_words_are_found_in_every_spelling(tokenizer: Tokenizer) -> None:
    tokens = [SOS_ID, *tokenizer.encode("a dog runs"), EOS_ID]
    words = list(find_words(tokens, tokenizer))
    assert [word.text for word in words] == ["a", "dog", "runs"]
    spelled = {index for word in words for index in word.indices}
    rest = {tokenizer.id_to_piece(one) for n, one in enumerate(tokens) if n not in spelled}
    assert rest <= {"[SOS]", "[EOS]", "▁"}


def test_special_tokens_of_the_file_have_no_place(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.id_to_piece(number) for number in range(len(tokenizer))]
    assert pieces[:NUM_SPECIAL] == ["<unk>", "[SOS]", "[EOS]", "[MASK]"]
    assert not {*SPECIAL, "<unk>", "</s>", "<|endoftext|>"} & {*pieces[NUM_SPECIAL:]}
    ids = tokenizer.encode("[MASK] [CLS] <s> </s> <unk> [UNK] <|endoftext|> \ud800")
    assert not {SOS_ID, EOS_ID, MASK_ID} & set(ids)


@pytest.mark.parametrize("make", [word_piece, suffixed, unigram, word_level])
def test_what_the_file_cannot_encode_is_unknown(make: Callable[[], Any]) -> None:
    tokenizer = opened(make)
    ids = tokenizer.encode("a 犬 dog")
    assert UNK_ID in ids
    assert tokenizer.decode(ids).split() == ["a", "dog"]
    assert tokenizer.normalize("犬") == ""


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_bytes_are_joined_and_dropped_at_the_end(make: Callable[[], Any]) -> None:
    tokenizer = opened(make)
    ids = tokenizer.encode("dog 🐕 犬")
    assert UNK_ID not in ids
    assert tokenizer.decode(ids) == "dog 🐕 犬"
    assert tokenizer.decode(ids[:-1]) == "dog 🐕"
    assert [word.text for word in find_words(ids, tokenizer)] == ["dog", "犬"]


def test_a_list_of_words_is_read_as_the_file_has_them(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Dog\ncafé\n")
    assert read_words(tmp_path / "words.txt", opened(word_piece)) == {"dog", "café"}


def test_padding_and_truncation_of_the_file_are_left_out() -> None:
    made = byte_level()
    whole = Tokenizer(made.to_str().encode())
    made.enable_truncation(2)
    made.enable_padding(length=2**40)
    assert Tokenizer(made.to_str().encode()).encode("a dog runs") == whole.encode("a dog runs")


def changed(**parts: object) -> bytes:
    return json.dumps({**json.loads(word_piece().to_str()), **parts}).encode()


DOUBLED = {"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}
BAD = {
    "cut off": (word_piece().to_str()[:-40].encode(), "damaged or cut off"),
    "not UTF-8": (b'{"model": "\xff"}', "damaged or cut off"),
    "nested": (b'{"model":' + b"[" * 100_000, "damaged or cut off"),
    "no model": (b'{"version": "1.0"}', "without a `model`"),
    "no tokens": (b'{"model": {"type": "WordLevel", "vocab": {}, "unk_token": "u"}}', "tokens"),
    "another model": (changed(model={"type": "Other", "vocab": {}}), "cannot be opened"),
    "growth": (changed(normalizer={"type": "Sequence", "normalizers": [DOUBLED] * 40}), "65,536"),
    "panic": (
        changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "cannot be opened",
    ),
    "unknown": (
        b'{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "u"}}',
        "cannot encode",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"(?s)tokenizer\.json.*{message}"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="cannot read"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = word_piece().to_str().encode()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match="pip install tokenizers"):
        Tokenizer(content)


def test_a_run_keeps_its_copy_and_goes_on_with_it(tmp_path: Path) -> None:
    given, run = tmp_path / "given.json", tmp_path / "run"
    byte_level().save(str(given))
    content = given.read_bytes()
    flags = ("--num_samples", "0", "--data.num_val_images", "0")
    flags += ("--tokenizer.tokenizer_path", str(given))
    pretrain(small_config(run, *flags, "--run.num_steps", "1"))
    assert (run / "tokenizer.json").read_bytes() == content
    assert not (run / "tokenizer.model").exists()
    given.unlink()
    assert pretrain(small_config(run, *flags, "--run.num_steps", "1")).step == 1
    assert load_own_tokenizer(run).model_bytes == content
    assert load_captioner(run).tokenizer.model_bytes == content
    weights = run / "weights.safetensors"
    assert load_captioner(weights).tokenizer.decode(range(NUM_SPECIAL, NUM_SPECIAL + 3))
    (run / "tokenizer.json").unlink()
    assert pretrain(small_config(run, *flags, "--run.num_steps", "1")).step == 1
    assert (run / "tokenizer.json").read_bytes() == content
