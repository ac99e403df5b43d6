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
    (tmp_path / "words.txt").write_text("Dog\n\n  café \ncats\n")
    assert read_words(tmp_path / "words.txt") == {"dog", "cafe", "cats"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("dog\nfire hydrant\n", "'fire hydrant'.*one word a line"), ("\n", "holds nothing")],
)
def test_what_is_no_list_of_words_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_words(tmp_path / "words.txt")


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt"):
        read_words(tmp_path / "none.txt")
