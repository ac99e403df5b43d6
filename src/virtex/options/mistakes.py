"""All mistakes of a command line at once, in words, though parsing stops at its first."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from virtex.errors import ConfigError

log = logging.getLogger("virtex")

MOST = 10
"""Most mistakes that are looked for."""
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
}
KEY = re.compile(r'Parser key "([\w.]+)":\s*(.*)', re.DOTALL)
SUBTYPES = re.compile(r"Subtypes: \[(.*)\]")
VALUE = re.compile(r"(?:Got|Given) value: (.*)")


def every_mistake(
    error: Exception, arguments: Sequence[str], parse: Callable[[Sequence[str]], object]
) -> list[str]:
    """Return the text of an error, and of those that follow where its option is left out.

    Args:
        parse: Function that raised the error of these arguments, a ConfigError.
    """
    texts, rest = [in_words(str(error))], list(arguments)
    with _quiet():
        while len(texts) < MOST and (names := _named(rest, texts[-1])):
            rest = _without(rest, names)
            try:
                parse(rest)
            except ConfigError as another:
                text = in_words(str(another))
                if text in texts or any(name in text for name in names):  # which it now lacks
                    break
                texts.append(text)
            else:
                break
    return texts


def as_list(texts: Sequence[str]) -> str:
    """Return several texts as a list under one line, a single one as it stands."""
    if len(texts) == 1:
        return texts[0]
    indented = [text.replace("\n", "\n  ") for text in texts]
    return "\n- ".join(["the options cannot work:", *indented])


def in_words(text: str) -> str:
    """Return the text of an error, with the types of a library's message in words."""
    found, value = KEY.match(text), VALUE.search(text)
    if found is None or value is None:
        return text
    allowed = SUBTYPES.search(text)
    kinds = re.findall(r"<class '(\w+)'>", allowed[1] if allowed else found[2])
    if not kinds or not KINDS.keys() >= set(kinds):
        return text
    return f"{found[1]} {value[1]}: give {' or '.join(KINDS[kind] for kind in kinds)}"


def _named(arguments: Sequence[str], text: str) -> set[str]:
    """Return the flags of the option that a text names first, and of what depends on it."""
    names = {argument[2:].partition("=")[0] for argument in arguments if argument[:2] == "--"}
    places = {}
    for name in names - {"config"}:
        if found := re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.]\w)", text):
            places[name] = found.start()
    if not places:
        return set()
    first = min(places, key=lambda name: (places[name], -len(name)))
    return {name for name in names if name == first or name.startswith(f"{first}.")}


def _without(arguments: Sequence[str], names: set[str]) -> list[str]:
    """Return the arguments without some flags and their values."""
    kept, is_left_out = [], False
    for argument in arguments:
        if argument.startswith("--"):
            is_left_out = argument[2:].partition("=")[0] in names
        if not is_left_out:
            kept.append(argument)
    return kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing, since all has been logged before."""
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before
