"""Captions of every language keep their words; the released rule stays as it was."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.data.normalization import normalize_caption, normalize_original

WITH_MARKS = [
    "müßiggänger essen äpfel",
    "パンダがバスで笹を食べている",
    "빨간 공이 잔디 위에 있다 ㅋㅋ",
    "कुत्ता पानी के पास खेल रहा है",
    "সাদা বিড়াল",
    "สุนัขเล่นอยู่ริมน้ำ",
    "ຫມາ ກິນ ນ້ຳ",
    "ខ្មែរ",
    "كُرَةٌ حَمْراءُ على العُشْبِ",
    "می‌خواهم",
    "שָׁלוֹם",
    "một quả bóng đỏ trên cỏ",
    "ещё один йогурт",
    "草地上有一个红色的球",
    "ığdır'da kırmızı top",
    "a dog 🐕 and a cat 🐈‍⬛ ☀️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 👩‍👩‍👧 👍🏽 🇩🇪",
    "½ cup, 2½ cups, 10² lego™ ①②",
]
"""Captions in normal form."""


@pytest.mark.parametrize("caption", WITH_MARKS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_captions_of_every_language_stay_as_they_are(caption: str, form: str) -> None:
    assert normalize_caption(unicodedata.normalize(form, caption)) == unicodedata.normalize(
        "NFC", caption
    )


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("ÄPFEL  Èn\tЙОГУРТ\n", "äpfel èn йогурт"),
        ("ΣΟΦΟΣ", "σοφος"),
        ("İyi IŞIK", "iyi işik"),
        ("ﾊﾟﾝﾀﾞ ＡＢＣ　ﬁne…", "パンダ abc fine..."),
        ("a\0nul \x07bell\x1b[0m", "a nul bell [0m"),
        ("one\u2028two\u200bthree", "one two three"),
        ("\ufeffbom Auto\u00adbahn \u202ea\u202c", "bom autobahn a"),
        ("▁a▁b", "a b"),
        ("\u200b\u200d", ""),
        ("\u200cdog", "dog"),
        ("\udcff", "\ufffd"),
    ],
)
def test_one_text_has_one_spelling(written: str, normal: str) -> None:
    assert normalize_caption(written) == normal


def test_the_released_rule_strips_marks() -> None:
    captions = ["läuft", "パンダ", "कुत्ता", "Café й"]
    assert list(map(normalize_original, captions)) == ["lauft", "ハンタ", "कुतता", "cafe и"]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_captions_are_alike_under_both_rules(text: str) -> None:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    assert normalize_caption(printable) == normalize_original(printable)


@settings(deadline=None)
@given(st.text())
@pytest.mark.parametrize("normalize", [normalize_caption, normalize_original])
def test_normalizing_twice_changes_nothing(normalize, text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@settings(deadline=None)
@given(st.text())
def test_normal_text_has_no_capitals_and_no_control_characters(text: str) -> None:
    normal = normalize_caption(text)
    assert normal == normal.lower()
    assert not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in normal)


@settings(deadline=None)
@given(st.text())
def test_originally_normal_text_has_no_accents(text: str) -> None:
    normal = normalize_original(text)
    assert normal == normal.lower()
    assert not any(map(unicodedata.combining, normal))
