"""Nouns of the kinds: articles, plurals, number words, and reading them back from a caption."""

import re
from functools import lru_cache

from virtex.data.sources.scenes.kinds import KINDS, Kind

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def with_article(phrase: str) -> str:
    """Return a phrase with its article: `a dog`, `an orange cat`."""
    return f"an {phrase}" if phrase[0].lower() in "aeiou" else f"a {phrase}"


def plural_of(noun: str, kind: Kind) -> str:
    """Return the plural of one of a kind's nouns."""
    if noun == kind.name and kind.plural:
        return kind.plural
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def nouns_of(kind: Kind) -> frozenset[str]:
    """Return every noun, singular and plural, that captions use for a kind."""
    singular = (kind.name, *kind.synonyms)
    return frozenset(singular) | {plural_of(noun, kind) for noun in singular}


def kinds_named_in(caption: str) -> set[str]:
    """Return the kinds (as in `CATEGORIES`) that a caption names, by any of their nouns.

    The longest noun counts: a `teddy bear` names no bear, a `street lamp` no lamp.
    """
    pattern, kind_of = _reader()
    return {kind_of[noun] for noun in pattern.findall(caption.lower())}


@lru_cache(maxsize=1)
def _reader() -> tuple[re.Pattern[str], dict[str, str]]:
    kind_of = {noun: kind.name for kind in KINDS for noun in nouns_of(kind)}
    longest_first = sorted(kind_of, key=lambda noun: (-len(noun), noun))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b"), kind_of
