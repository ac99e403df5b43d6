"""What is counted in captions, against slow twins and worked examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data_check import caption_measures as measures
from virtex.data_check.caption_measures import measure
from virtex.data_check.letters import SCRIPTS

FAULTS = {
    "": measures.NEAR_EMPTY,
    " .\n": measures.NEAR_EMPTY | measures.CONTROLS,
    "a": measures.NEAR_EMPTY,
    "犬": measures.NEAR_EMPTY,
    "犬猫": 0,
    "dog": 0,
    "12:30, 2004-05-01": measures.DIGITS,
    "IMG_2041": measures.FILE_NAME | measures.DIGITS,
    "my photo.JPG": measures.FILE_NAME,
    "the file name of this picture is photo.jpg": 0,
    "https://example.org/a": measures.URL,
    "www.example.org": measures.URL,
    "A DOG RUNS": measures.CAPITALS,
    "A USA map": 0,
    "a\x1b[2Jdog": measures.CONTROLS,
}


@pytest.mark.parametrize("caption", FAULTS)
def test_faults_of_a_caption(caption: str) -> None:
    found = int(measure([caption]).faults[0])
    assert found == FAULTS[caption]
    beside = measure(["a dog", caption, "another dog"]).faults
    assert beside.tolist() == [0, FAULTS[caption], 0]


@pytest.mark.parametrize(
    ("caption", "script", "words"),
    [
        ("a dog's  ball", "Latin", 3),
        ("Ёж и a кот", "Cyrillic", 4),
        ("红色的球", "Han", 4),
        ("كُرَةٌ حَمْراءُ", "Arabic", 2),
        ("कुत्ता पानी", "Devanagari", 2),
        ("สุนัขเล่นอยู่ริมน้ำ", "Thai", 5),
        ("12 !", "no letters", 2),
        ("ᏣᎳᎩ", "other", 1),
    ],
)
def test_script_and_words_of_a_caption(caption: str, script: str, words: int) -> None:
    found = measure([caption])
    assert SCRIPTS[found.scripts[0]] == script
    assert found.words[0] == words


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Lo", "Cs"]), max_size=30), max_size=5))
def test_words_are_those_that_split_gives(captions: list[str]) -> None:
    assert measure(captions).words.tolist() == [len(caption.split()) for caption in captions]


@settings(max_examples=40)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_a_caption_is_measured_alike_alone_and_beside_others(captions: list[str]) -> None:
    together = measure(captions)
    for index, caption in enumerate(captions):
        for alone, one in zip(measure([caption]), together, strict=True):
            np.testing.assert_array_equal(alone[0], one[index])
