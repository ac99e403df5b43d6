"""Captions to token ids and back."""

import io
import pickle
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.normalization import normalize_caption, normalize_original
from virtex.data.tokenizer import Tokenizer, train_tokenizer
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.tokens import EOS_ID, MASK_ID, SOS_ID, UNK_ID

CAPTIONS = (
    "A brown dog runs on the left of a café.",
    "Two cats sleep beside a red car",
    "A woman rides a horse past 12 parked cars",
    "a dog and a cat share a red couch",
)
WORDS = sorted({word for caption in CAPTIONS for word in normalize_caption(caption).split()})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CAPTIONS, vocab_size=60)


def test_special_tokens_have_the_released_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.id_to_piece(UNK_ID) == "<unk>"
    assert tokenizer.id_to_piece(SOS_ID) == "[SOS]"
    assert tokenizer.id_to_piece(EOS_ID) == "[EOS]"
    assert tokenizer.id_to_piece(MASK_ID) == "[MASK]"
    assert len(tokenizer) == tokenizer.vocab_size == 60


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_decoding_undoes_encoding(words: list[str]) -> None:
    tokenizer = train_tokenizer_once()
    assert tokenizer.decode(tokenizer.encode(" ".join(words))) == " ".join(words)


def test_encoding_ignores_case_and_spaces(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("A  CAFÉ\n") == tokenizer.encode("a cafe\u0301")
    assert tokenizer.encode("a cafe") != tokenizer.encode("a café")


LANGUAGES = (
    "パンダがバスで笹を食べている",
    "ハンダごてがテーブルの上にある",
    "빨간 공이 잔디 위에 있다",
    "कुत्ता पानी के पास खेल रहा है",
    "สุนัขเล่นอยู่ริมน้ำ",
    "كُرَةٌ حَمْراءُ على العُشْبِ",
    "một quả bóng đỏ trên cỏ",
    "ещё один йогурт",
    "草地上有一个红色的球",
    "müßiggänger essen äpfel",
    "a dog 🐕 and a cat 🐈‍⬛ ☀️",
    "<unk> <s> </s> [sos] [eos] [mask] cat",
)


@pytest.fixture(scope="module")
def many_languages() -> Tokenizer:
    return train_tokenizer(LANGUAGES, vocab_size=1000)


@pytest.mark.parametrize("caption", LANGUAGES)
def test_captions_of_every_language_come_back(caption: str, many_languages: Tokenizer) -> None:
    ids = many_languages.encode(caption)
    assert not set(ids) & {UNK_ID, SOS_ID, EOS_ID, MASK_ID}
    assert many_languages.decode(ids) == caption


@pytest.mark.parametrize("letter", ["\u2585", "\U0010ffff", "\ue000", "ж", "\u0b95\u0bcd", "🦀"])
def test_other_characters_are_unknown_and_make_no_word(letter: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"dog {letter} cat")
    assert UNK_ID in ids
    assert tokenizer.decode(ids).split() == ["dog", "cat"]


def test_a_reserved_character_leaves_no_caption_out() -> None:
    assert UNK_ID not in train_tokenizer(["▅ zebra"], vocab_size=30).encode("zebra")
    with pytest.raises(DataError, match="no captions"):
        train_tokenizer(["▅"], vocab_size=30)


def test_the_rule_is_the_models_own(tokenizer: Tokenizer, tmp_path: Path) -> None:
    released = train_tokenizer(CAPTIONS, vocab_size=60, original=True)
    for one, original in ((tokenizer, False), (released, True)):
        one.save(tmp_path / "one.model")
        loaded = Tokenizer.load(tmp_path / "one.model")
        assert loaded.original == original
        assert (UNK_ID in loaded.encode("ö")) == (not original)
    assert released.encode("a CAFÉ") == released.encode("a cafe")
    assert released.decode(released.encode("a CAFÉ")) == "a cafe"


def test_ascii_captions_have_the_same_tokens_under_both_rules() -> None:
    captions = [normalize_original(caption) for caption in CAPTIONS]
    rules = [train_tokenizer(captions, vocab_size=60, original=rule) for rule in (False, True)]
    pieces = [[one.id_to_piece(token) for token in range(len(one))] for one in rules]
    assert pieces[0] == pieces[1]
    assert [rules[0].encode(text) for text in CAPTIONS[1:]] == [
        rules[1].encode(text) for text in CAPTIONS[1:]
    ]


def test_every_training_character_is_known(tokenizer: Tokenizer) -> None:
    assert all(UNK_ID not in tokenizer.encode(caption) for caption in CAPTIONS)


def test_a_character_never_seen_is_unknown(tokenizer: Tokenizer) -> None:
    assert UNK_ID in tokenizer.encode("z")


def test_the_text_of_a_special_token_is_not_that_token(tokenizer: Tokenizer) -> None:
    assert not {SOS_ID, EOS_ID, MASK_ID} & set(tokenizer.encode("[SOS] [EOS] [MASK]"))


def test_decoding_drops_special_tokens_and_stops_at_the_end(tokenizer: Tokenizer) -> None:
    dog, cat = tokenizer.encode("dog"), tokenizer.encode("cat")
    assert tokenizer.decode([SOS_ID, *dog, MASK_ID, UNK_ID, EOS_ID, *cat]) == "dog"


def test_training_is_deterministic_for_any_iterable(tokenizer: Tokenizer) -> None:
    again = train_tokenizer((caption for caption in CAPTIONS), vocab_size=60)
    assert again.model_bytes == tokenizer.model_bytes


@pytest.mark.parametrize("captions", [CAPTIONS, LANGUAGES * 3], ids=["english", "many"])
def test_words_with_their_numbers_give_the_model_of_the_captions(captions: tuple[str, ...]) -> None:
    ours = train_tokenizer(captions, vocab_size=300, original=True)
    assert ours.model_bytes == model_of_text(map(normalize_original, captions), vocab_size=300)


def test_training_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    train_tokenizer(CAPTIONS, vocab_size=50)
    assert list(tmp_path.iterdir()) == []


def test_a_caption_beyond_sentencepieces_own_limit_is_learned_from() -> None:
    tokenizer = train_tokenizer(["a b " * 3000 + "q", "x" * 70_000], vocab_size=10)
    assert UNK_ID not in tokenizer.encode("q" + "x" * 70_000)


def test_a_vocabulary_is_no_larger_than_the_captions_give(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        tokenizer = train_tokenizer(CAPTIONS, vocab_size=10_000)
    assert caplog.messages == [
        f"vocabulary: {len(tokenizer)} pieces; the captions give no more of the 10,000 requested"
    ]
    assert tokenizer == train_tokenizer(CAPTIONS, vocab_size=len(tokenizer))
    assert len(caplog.messages) == 1


def test_too_small_a_vocabulary_names_the_smallest_that_works() -> None:
    with pytest.raises(ConfigError, match="or more") as caught:
        train_tokenizer(CAPTIONS, vocab_size=5)
    smallest = _number_before("or more", str(caught.value))
    assert len(train_tokenizer(CAPTIONS, vocab_size=smallest)) == smallest
    with pytest.raises(ConfigError):
        train_tokenizer(CAPTIONS, vocab_size=smallest - 1)


@pytest.mark.parametrize("captions", [[], ["", "  "], ["\u200b\ufeff"]])
def test_no_text_to_train_on_is_an_error(captions: list[str]) -> None:
    with pytest.raises(DataError, match="no captions"):
        train_tokenizer(captions, vocab_size=20)


def test_saving_and_pickling_keep_the_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.model")
    for copy in (
        Tokenizer.load(tmp_path / "tokenizer.model"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy == tokenizer
        assert copy.encode(CAPTIONS[0]) == tokenizer.encode(CAPTIONS[0])


def test_a_model_trained_as_the_released_one_loads(tmp_path: Path) -> None:
    text_path = tmp_path / "captions.txt"
    text_path.write_text("\n".join(map(normalize_original, CAPTIONS)))
    sentencepiece.SentencePieceTrainer.train(
        f"--input={text_path} --model_prefix={tmp_path / 'old'} --vocab_size=60 --model_type=bpe "
        "--character_coverage=1.0 --bos_id=-1 --eos_id=-1 --minloglevel=2 "
        "--control_symbols=[SOS],[EOS],[MASK]"
    )
    tokenizer = Tokenizer.load(tmp_path / "old.model")
    assert tokenizer.original
    assert tokenizer.decode(tokenizer.encode("A réd dog")) == "a red dog"


def test_a_model_of_another_layout_is_refused(tmp_path: Path) -> None:
    text_path = tmp_path / "captions.txt"
    text_path.write_text("\n".join(CAPTIONS))
    sentencepiece.SentencePieceTrainer.train(
        f"--input={text_path} --model_prefix={tmp_path / 'plain'} --vocab_size=60 "
        "--model_type=bpe --minloglevel=2"
    )
    with pytest.raises(CheckpointError, match=r"plain\.model.*layout"):
        Tokenizer.load(tmp_path / "plain.model")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.model"):
        Tokenizer.load(tmp_path / "gone.model")


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100), bytes(range(256))])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError):
        Tokenizer(content)


@pytest.mark.parametrize("original", [False, True])
def test_a_model_cut_off_anywhere_is_refused(original: bool) -> None:
    whole = train_tokenizer(CAPTIONS, vocab_size=60, original=original).model_bytes
    for length in {*range(min(2000, len(whole))), *range(2000, len(whole), 9973), len(whole) - 1}:
        with pytest.raises(CheckpointError):
            Tokenizer(whole[:length])


def model_of_text(lines: Iterable[str], *, vocab_size: int) -> bytes:
    """A model that SentencePiece trains on lines of text itself."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        normalization_rule_name="nmt_nfkc",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        max_sentence_length=2**30,
        num_threads=1,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        control_symbols=["[SOS]", "[EOS]", "[MASK]"],
        minloglevel=2,
    )
    return model.getvalue()


def train_tokenizer_once() -> Tokenizer:
    if not _trained:
        _trained.append(train_tokenizer(CAPTIONS, vocab_size=60))
    return _trained[0]


_trained: list[Tokenizer] = []


def _number_before(words: str, message: str) -> int:
    return int(message.split(f" {words}")[0].split()[-1])
