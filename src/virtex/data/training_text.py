"""Words and characters of the captions that a vocabulary is trained on."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from virtex.data.sentencepieces import RESERVED, SPACE
from virtex.errors import DataError

OTHER = "\0"
"""Character that SentencePiece takes for unknown text: it is no piece, and part of none."""


@dataclass(frozen=True, eq=False)
class TrainingText:
    """The distinct words of captions and how often each occurs; so memory is bounded by these."""

    words: Counter[str]
    characters: Counter[str]
    """Characters with their numbers; a space stands before each word."""

    @classmethod
    def of(cls, captions: Iterable[str], normalize: Callable[[str], str]) -> "TrainingText":
        """Read captions; a DataError says that none has any text."""
        words: Counter[str] = Counter()
        for caption in captions:
            words.update(normalize(caption).replace(RESERVED, " ").split())
        if not words:
            raise DataError("no captions to train a tokenizer on: all are empty or there are none")
        characters: Counter[str] = Counter()
        for word, count in words.items():
            for character in word:
                characters[character] += count
        characters[SPACE] += words.total()
        return cls(words, characters)

    def num_characters(self, coverage: float) -> int:
        """Return how many characters, the most frequent, make up a fraction of the text."""
        counts = np.sort(np.fromiter(self.characters.values(), np.int64))[::-1]
        return int(np.searchsorted(np.cumsum(counts), coverage * counts.sum())) + 1

    def with_characters(self, number: int) -> Counter[str]:
        """Return the words, in which all but the most frequent characters are OTHER."""
        ranked = sorted(self.characters.items(), key=lambda item: (-item[1], item[0]))
        table = dict.fromkeys((ord(character) for character, _ in ranked[number:]), OTHER)
        if not table:
            return self.words
        words: Counter[str] = Counter()
        for word, count in self.words.items():
            words[word.translate(table)] += count
        return words
