"""Scripts and kinds of characters by code point, as tables for numpy."""

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

RANGES = {
    "Latin": "41-5a 61-7a aa ba c0-d6 d8-f6 f8-24f 1e00-1eff 2c60-2c7f a720-a7ff fb00-fb06 "
    "ff21-ff3a ff41-ff5a",
    "Greek": "370-3ff 1f00-1fff",
    "Cyrillic": "400-52f 1c80-1c8f 2de0-2dff a640-a69f",
    "Armenian": "530-58f",
    "Hebrew": "590-5ff fb1d-fb4f",
    "Arabic": "600-6ff 750-77f 870-8ff fb50-fdff fe70-fefe",
    "Devanagari": "900-97f a8e0-a8ff",
    "Bengali": "980-9ff",
    "Gurmukhi": "a00-a7f",
    "Gujarati": "a80-aff",
    "Tamil": "b80-bff",
    "Telugu": "c00-c7f",
    "Kannada": "c80-cff",
    "Malayalam": "d00-d7f",
    "Sinhala": "d80-dff",
    "Thai": "e00-e7f",
    "Lao": "e80-eff",
    "Burmese": "1000-109f a9e0-a9ff aa60-aa7f",
    "Georgian": "10a0-10ff 1c90-1cbf 2d00-2d2f",
    "Ethiopic": "1200-139f 2d80-2ddf ab00-ab2f",
    "Khmer": "1780-17ff",
    "Hangul": "1100-11ff 3130-318f a960-a97f ac00-d7ff",
    "Kana": "3040-30ff 31f0-31ff ff66-ff9f",
    "Han": "3400-4dbf 4e00-9fff f900-faff 20000-3ffff",
}
"""First and last code points of scripts, in hexadecimal digits."""
NO_LETTERS, OTHER = "no letters", "other"
SCRIPTS = (NO_LETTERS, OTHER, *RANGES)
"""Names of the scripts in `scripts()`; the letters of `other` are in no range."""
WORDS_PER_LETTER = {"Han": 1.0, "Kana": 0.5, "Thai": 0.25, "Lao": 0.25, "Burmese": 0.25,
                    "Khmer": 0.25}  # fmt: skip
"""Words that a letter stands for, roughly, in scripts that put no spaces between words."""
NUM_CODES = 0x110000
CATEGORIZED = (range(0x323B0), range(0xE0000, 0xE0200))
"""Code points that may be letters, marks, digits or controls; the others are unassigned."""
LETTER, DIGIT, MARK, SPACE, UPPER, LOWER, CONTROL = (1 << bit for bit in range(7))
"""Kinds of characters; MARK is a mark of punctuation, and an accent belongs to its letter."""
KINDS = {"L": LETTER, "M": LETTER, "N": DIGIT, "P": MARK, "S": MARK, "Z": SPACE}
"""Kinds by the first letter of Unicode's general category."""


@functools.cache
def scripts() -> NDArray[np.uint8]:
    """Return the index into SCRIPTS of each code point; 0 for what is no letter."""
    table = np.zeros(NUM_CODES, np.uint8)
    table[(kinds() & LETTER) > 0] = SCRIPTS.index(OTHER)
    for name, ranges in RANGES.items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            piece = slice(int(first, 16), int(last or first, 16) + 1)
            table[piece] = np.where(kinds()[piece] & LETTER, SCRIPTS.index(name), 0)
    accents = range(0x300, 0x370)  # of any script
    table[accents.start : accents.stop] = 0
    return table


@functools.cache
def kinds() -> NDArray[np.uint8]:
    """Return the kinds of each code point, joined by |."""
    table = np.zeros(NUM_CODES, np.uint8)
    for codes in CATEGORIZED:
        table[codes.start : codes.stop] = [_kinds_of(chr(code)) for code in codes]
    table[0xD800:0xE000] = CONTROL  # lone surrogates
    return table


@functools.cache
def words_per_letter() -> NDArray[np.float32]:
    """Return WORDS_PER_LETTER of each script in SCRIPTS; 0 where spaces separate words."""
    return np.asarray([WORDS_PER_LETTER.get(name, 0) for name in SCRIPTS], np.float32)


def _kinds_of(letter: str) -> int:
    category = unicodedata.category(letter)
    if letter.isspace():
        return SPACE | (CONTROL if category == "Cc" else 0)
    if category == "Cc":
        return CONTROL
    case = UPPER if letter.isupper() else LOWER if letter.islower() else 0
    return KINDS.get(category[0], 0) | case
