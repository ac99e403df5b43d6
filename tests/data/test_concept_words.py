"""Words of tokenised captions, and concept words among them."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.concept_words import FindConcepts, find_words, read_words
from virtex.data.tokenizer import train_tokenizer
from virtex.errors import ConfigError
from virtex.tokens import EOS_ID, SOS_ID

CAPTIONS = ["a dog's ball, next to the red-brown skateboard.", "two cats sleep on 3 beds!"]
SPOKEN = ["a", "dog's", "red-brown", "cats,", "skateboard", "3", "beds!", "zebra"]
TOKENIZER = train_tokenizer(CAPTIONS, vocab_size=45)


def tokens_of(caption: str) -> list[int]:
    return [SOS_ID, *TOKENIZER.encode(caption), EOS_ID]


def test_punctuation_and_spaces_divide_words() -> None:
    words = [word.text for word in find_words(tokens_of(CAPTIONS[0]), TOKENIZER)]
    assert words == ["a", "dog", "s", "ball", "next", "to", "the", "red", "brown", "skateboard"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(SPOKEN)))
def test_the_indices_of_a_word_hold_its_letters_and_no_others(caption: list[str]) -> None:
    tokens = tokens_of(" ".join(caption))
    words = list(find_words(tokens, TOKENIZER))
    for word in words:
        pieces = "".join(TOKENIZER.id_to_piece(tokens[index]) for index in word.indices)
        assert pieces.lstrip("▁") == word.text
    indices = [index for word in words for index in word.indices]
    assert indices == sorted(set(indices))
    rest = [TOKENIZER.id_to_piece(t) for i, t in enumerate(tokens) if i not in indices]
    assert not any(letter.isalnum() for piece in rest if piece[0] not in "[<" for letter in piece)


def test_function_words_are_no_concepts() -> None:
    concepts = [word.text for word in FindConcepts(TOKENIZER)(tokens_of(CAPTIONS[0]))]
    assert concepts == ["dog", "ball", "red", "brown", "skateboard"]


def test_listed_words_alone_are_concepts_where_there_is_a_list() -> None:
    find = FindConcepts(TOKENIZER, frozenset({"the", "ball", "cats"}))
    assert [word.text for word in find(tokens_of(CAPTIONS[0]))] == ["ball", "the"]
    assert pickle.loads(pickle.dumps(find)) == find


def test_a_list_is_read_as_captions_are(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\ufeffDog\n\n  café \nकुत्ता\nمی‌خواهم\n")
    words = read_words(tmp_path / "words.txt", TOKENIZER)
    assert words == {"dog", "café", "कुत्ता", "می‌خواهم"}
    released = train_tokenizer(CAPTIONS, vocab_size=45, original=True)
    (tmp_path / "words.txt").write_text("Café\n")
    assert read_words(tmp_path / "words.txt", released) == {"cafe"}


SPELLED = {
    "कुत्ता पानी के पास": ["कुत्ता", "पानी", "के", "पास"],
    "con chó chơi gần nước.": ["con", "chó", "chơi", "gần", "nước"],
    "كُرَةٌ، حَمْراءُ": ["كُرَةٌ", "حَمْراءُ"],
    "می‌خواهم!": ["می‌خواهم"],
    "sun ☀️ 🐈‍⬛ cat": ["sun", "cat"],
}


@pytest.mark.parametrize(("caption", "expected"), SPELLED.items())
@pytest.mark.parametrize("vocab_size", [90, 1000], ids=["letters", "words"])
def test_marks_are_part_of_their_words(caption: str, expected: list[str], vocab_size: int) -> None:
    tokenizer = train_tokenizer(SPELLED, vocab_size=vocab_size)
    found = find_words([SOS_ID, *tokenizer.encode(caption), EOS_ID], tokenizer)
    assert [word.text for word in found] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog\nfire hydrant\n", "'fire hydrant'.*one word a line"),
        ("\n", "holds nothing"),
        ("☀️\n", "one word a line"),
    ],
)
def test_what_is_no_list_of_words_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_words(tmp_path / "words.txt", TOKENIZER)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt"):
        read_words(tmp_path / "none.txt", TOKENIZER)
