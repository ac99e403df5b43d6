"""Captions as sequences with start and end, and as padded batches."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.captions import EncodeCaption, pad_tokens
from virtex.data.tokenizer import train_tokenizer
from virtex.errors import ConfigError
from virtex.tokens import EOS_ID, PAD_ID, SOS_ID

TOKENIZER = train_tokenizer(["a dog runs past a red car", "two cats sleep"], vocab_size=40)
TEXTS = st.lists(st.sampled_from(["a", "dog", "runs", "red", "car", "two", "cats"]), max_size=30)


@settings(deadline=None)
@given(TEXTS, st.integers(3, 40))
def test_a_caption_keeps_both_ends_however_long_it_is(words: list[str], max_tokens: int) -> None:
    text = " ".join(words)
    tokens = EncodeCaption(TOKENIZER, max_tokens)(text).tolist()
    assert (tokens[0], tokens[-1]) == (SOS_ID, EOS_ID)
    assert tokens[1:-1] == TOKENIZER.encode(text)[: max_tokens - 2]


@settings(deadline=None)
@given(TEXTS, st.integers(3, 40))
def test_the_original_cut_takes_the_end_token_too(words: list[str], max_tokens: int) -> None:
    text = " ".join(words)
    tokens = EncodeCaption(TOKENIZER, max_tokens, original=True)(text).tolist()
    assert tokens == [SOS_ID, *TOKENIZER.encode(text), EOS_ID][:max_tokens]


def test_an_empty_caption_is_start_and_end() -> None:
    tokens = EncodeCaption(TOKENIZER, 30)("")
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [SOS_ID, EOS_ID]


def test_no_room_for_text_is_an_error() -> None:
    with pytest.raises(ConfigError, match="max_tokens 2"):
        EncodeCaption(TOKENIZER, 2)


def test_encoding_is_picklable() -> None:
    encode = EncodeCaption(TOKENIZER, 30)
    assert torch.equal(pickle.loads(pickle.dumps(encode))("a dog"), encode("a dog"))


def test_padding_fills_up_on_the_right() -> None:
    tokens, lengths = pad_tokens([torch.tensor([1, 5, 2]), torch.tensor([1, 2])])
    assert tokens.tolist() == [[1, 5, 2], [1, 2, PAD_ID]]
    assert lengths.tolist() == [3, 2]
    assert tokens.dtype == lengths.dtype == torch.int64
