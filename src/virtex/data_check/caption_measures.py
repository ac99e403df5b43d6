"""What is counted in each caption, for thousands of captions at a time."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virtex.data.image_files import IMAGE_SUFFIXES
from virtex.data_check import letters
from virtex.data_check.letters import (
    CONTROL,
    DIGIT,
    LETTER,
    LOWER,
    MARK,
    SCRIPTS,
    SPACE,
    UPPER,
)

NEAR_EMPTY, FILE_NAME, URL, DIGITS, CAPITALS, CONTROLS = (1 << bit for bit in range(6))
"""Faults of a caption."""
FEWEST_LETTERS = 3
"""Letters and digits below which a caption is nearly empty; one that is a word counts for two."""
SHORT = 4
"""Most words of a caption that may be a file name or a URL."""
LINK = re.compile(r"https?:/|ftp://|www\.|^\S+\.(com|net|org|html?|php)\b", re.IGNORECASE)
CAMERA = re.compile(r"(img|dsc[nf]?|pict|pxl|mvi|p|image|photo|scan|untitled)[ _-]?\d{3,}\S*", re.I)
"""Names that cameras and phones give."""
SUFFIXES = (*IMAGE_SUFFIXES, ".heic", ".svg", ".psd", ".raw", ".mp4", ".pdf")
SPECIAL_TOKENS = 2
"""Tokens that begin and end a caption."""


class Measures(NamedTuple):
    """Numbers of B captions, each (B,)."""

    words: NDArray[np.int64]
    pieces: NDArray[np.int64]
    """Runs of letters and digits, and marks: about the tokens of a vocabulary that fits."""
    scripts: NDArray[np.int64]
    """Index into SCRIPTS of the script with the most letters."""
    faults: NDArray[np.uint8]
    """NEAR_EMPTY and the others, joined by |."""


def measure(captions: Sequence[str]) -> Measures:
    """Measure B captions; takes some 60 bytes for each of their characters meanwhile."""
    text = _Text(captions)
    unspaced = text.unspaced_words()
    words = text.count_runs(text.has(SPACE, False)) + unspaced
    pieces = text.count_runs(text.has(LETTER | DIGIT)) + text.count(text.has(MARK)) + unspaced
    faults = text.faults()
    for index in np.flatnonzero(words <= SHORT).tolist():
        faults[index] |= _fault_of_name(captions[index].strip())
    return Measures(words, pieces, text.main_scripts(), faults)


class _Text:
    """The characters of B captions, one after another, and the caption of each."""

    def __init__(self, captions: Sequence[str]) -> None:
        self.num_captions = len(captions)
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        encoded = "".join(captions).encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(encoded, np.uint32)
        self.kinds, self.scripts = letters.kinds()[codes], letters.scripts()[codes]
        self.owners = np.repeat(np.arange(len(captions), dtype=np.int32), lengths)
        self.begins = np.zeros(len(codes), np.bool_)
        self.begins[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        self.weights = letters.words_per_letter()[self.scripts]
        """Words that each letter stands for where no spaces separate them."""

    def has(self, kinds: int, expected: bool = True) -> NDArray[np.bool_]:
        """Return whether each character is of one of these kinds, or of none."""
        return ((self.kinds & kinds) > 0) == expected

    def count(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the number of chosen characters of each caption."""
        return np.bincount(self.owners[chosen], minlength=self.num_captions)

    def count_runs(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the number of runs of chosen characters, without letters that weigh."""
        chosen = chosen & (self.weights == 0)
        is_first = self.begins.copy()
        is_first[1:] |= ~chosen[:-1]
        return self.count(chosen & is_first)

    def unspaced_words(self) -> NDArray[np.int64]:
        """Return the number of words that no spaces separate, roughly."""
        if not self.weights.any():
            return np.zeros(self.num_captions, np.int64)
        words = np.bincount(self.owners, self.weights, minlength=self.num_captions)
        return np.ceil(words).astype(np.int64)

    def faults(self) -> NDArray[np.uint8]:
        """Return the faults that the kinds of characters show."""
        num_letters, num_digits = self.count(self.scripts > 0), self.count(self.has(DIGIT))
        num_capitals = self.count(self.has(UPPER))
        num_signs = num_letters + num_digits + self.count(self.weights > 0)
        found = {
            NEAR_EMPTY: num_signs < FEWEST_LETTERS,
            DIGITS: num_digits > num_letters,
            CAPITALS: (num_capitals > FEWEST_LETTERS) & (self.count(self.has(LOWER)) == 0),
            CONTROLS: self.count(self.has(CONTROL)) > 0,
        }
        faults = np.zeros(self.num_captions, np.uint8)
        for fault, is_found in found.items():
            faults[is_found] |= fault
        return faults

    def main_scripts(self) -> NDArray[np.int64]:
        """Return the index into SCRIPTS of the script with the most letters in each caption."""
        is_letter = self.scripts > 0
        keys = self.owners[is_letter] * len(SCRIPTS) + self.scripts[is_letter]
        counts = np.bincount(keys, minlength=self.num_captions * len(SCRIPTS))
        return counts.reshape(self.num_captions, len(SCRIPTS)).argmax(1)


def _fault_of_name(caption: str) -> int:
    """Return the fault of a caption that is a file name or a URL; else 0."""
    if LINK.match(caption):
        return URL
    is_name = caption.lower().endswith(SUFFIXES) or CAMERA.fullmatch(caption)
    return FILE_NAME if is_name else 0
