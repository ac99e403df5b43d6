"""The words of a tokenized caption, and those that name a visible concept.

Nouns, verbs and adjectives are an open class; function words (articles, prepositions, pronouns,
conjunctions, auxiliaries) are few. So every English word that is not a function word counts as a
concept word, without a tagger; other languages and narrower choices need a word list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from virtex.data.checks import lines_of
from virtex.data.normalization import continues_word
from virtex.data.tokenizer import Tokenizer
from virtex.errors import ConfigError
from virtex.files import read_regular

CLOSED_CLASS = """
a about above across after against all along also am among an and another any anybody anyone
anything are aren around as at away back be because been before behind being below beneath beside
besides between beyond both but by can cannot could couldn d did didn do does doesn doing don done
down during each either else etc ever every everybody everyone everything few for from had hadn has
hasn have haven having he her here hers herself him himself his how i if in inside into is isn it
its itself just ll m many may me might mine more most much must my myself near neither next no
nobody none nor not nothing of off on one ones onto or other others our ours ourselves out outside
over own past per re s same shall she should shouldn since so some somebody someone something
somewhere still such t than that the their theirs them themselves then there these they this those
though through throughout till to together too toward towards under underneath until up upon us ve
very via was wasn we were weren what when where whether which while who whom whose why will with
within without would wouldn yet you your yours yourself yourselves
"""
FUNCTION_WORDS = frozenset(CLOSED_CLASS.split())


@dataclass(frozen=True)
class Word:
    """A word in lower case, and the indices of its tokens in the caption."""

    text: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class FindConcepts:
    """A function from a caption's token ids to its concept words."""

    tokenizer: Tokenizer
    listed: frozenset[str] | None = None
    """The concept words; by default all but English function words."""

    def __call__(self, tokens: Sequence[int]) -> list[Word]:
        return [word for word in find_words(tokens, self.tokenizer) if self._is_concept(word.text)]

    def _is_concept(self, text: str) -> bool:
        return text not in FUNCTION_WORDS if self.listed is None else text in self.listed


def find_words(tokens: Sequence[int], tokenizer: Tokenizer) -> Iterator[Word]:
    """Yield the words of a caption in order; spaces, punctuation and special tokens divide them."""
    word, indices, inside = "", list[int](), False
    for text, its_indices in tokenizer.characters(tokens):
        inside = inside and text != "" and continues_word(text[0])
        if indices and not inside:
            yield Word(word, tuple(indices))
            word, indices = "", []
        letters, inside = _letters(text, inside=inside)
        if letters:
            word += letters
            indices += its_indices
    if indices:
        yield Word(word, tuple(indices))


def _letters(text: str, *, inside: bool) -> tuple[str, bool]:
    """Return the letters of a text that belong to words, and whether it ends inside a word.

    A mark or joiner belongs to the word whose letter it follows; after an emoji it is none's.

    Args:
        inside: Whether the text before ends inside a word.
    """
    letters = ""
    for letter in text:
        inside = letter.isalnum() or (inside and continues_word(letter))
        letters += letter if inside else ""
    return letters, inside


def read_words(path: Path, tokenizer: Tokenizer) -> frozenset[str]:
    """Return the words of a text file, one a line, normalized like captions.

    Raises:
        ConfigError: The file cannot be read, has no words, or has several in a line.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the list of words {path}: {error}") from error
    lines = [tokenizer.normalize(line) for line in lines_of(text)]
    phrases = [line for line in lines if line and _letters(line, inside=False)[0] != line]
    if phrases or not any(lines):
        found = f"'{phrases[0]}'" if phrases else "nothing"
        raise ConfigError(
            f"{path} holds {found}, but a list of words is one word a line, letters and digits only"
        )
    return frozenset(filter(None, lines))
