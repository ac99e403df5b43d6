"""Texts of labels as a model reads them, and what hinders a fair comparison of their scores.

A captioner counts an unknown token as certain, so that a label of unknown characters would win.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from virtex.errors import listing
from virtex.predict.matching import Matcher
from virtex.tokens import UNK_ID

MOST_NAMED = 8
"""Most labels that a problem names."""
Tokens = tuple[tuple[int, ...], ...]
"""Tokens of a label in each template, without start and end."""


@dataclass(frozen=True)
class LabelTexts:
    """The tokens of labels in templates."""

    tokens: Mapping[str, Tokens]
    """Tokens of each label."""
    bare: Tokens
    """Tokens of the templates without a label, which all labels share."""
    unknown_letters: frozenset[str]
    """Characters of the labels that are unknown by themselves."""
    max_tokens: int
    """Largest number of tokens that the model reads of a text."""

    @classmethod
    def of(cls, labels: Sequence[str], templates: Sequence[str], matcher: Matcher) -> Self:
        """Encode labels in templates as a model does."""
        encode = matcher.tokenizer.encode
        return cls(
            {
                label: tuple(tuple(encode(one.replace("{}", label))) for one in templates)
                for label in labels
            },
            tuple(tuple(encode(one.replace("{}", ""))) for one in templates),
            frozenset(letter for letter in {*"".join(labels)} if UNK_ID in encode(letter)),
            matcher.max_text_tokens,
        )

    def unreadable(self) -> list[str]:
        """Return problems of labels that are blank, or of which characters are unknown."""
        blank = [label for label, texts in self.tokens.items() if texts == self.bare]
        unknown = [
            label
            for label, texts in self.tokens.items()
            if any(
                row.count(UNK_ID) > bare.count(UNK_ID)
                for row, bare in zip(texts, self.bare, strict=True)
            )
        ]
        problems = []
        if blank:
            problems.append(
                f"{_named(blank)}: without a letter that the model reads; give it words"
            )
        if unknown:
            letters = [
                one for one in dict.fromkeys("".join(unknown)) if one in self.unknown_letters
            ]
            problems.append(
                f"{_named(unknown)}: the vocabulary lacks {_named(letters) or 'a part'}; write it "
                "with other characters, or pretrain with --tokenizer.byte_fallback true, for which "
                "no text is unknown"
            )
        return problems

    def too_long(self) -> list[str]:
        """Return a problem of labels of which a text has too many tokens."""
        lengths = {label: max(map(len, texts), default=0) for label, texts in self.tokens.items()}
        long = {label: length for label, length in lengths.items() if length > self.max_tokens}
        if not long:
            return []
        return [
            f"{_named(long)}: a text of up to {max(long.values())} tokens, and the model takes at "
            f"most {self.max_tokens}; shorten it, or the templates"
        ]

    def alike(self) -> list[str]:
        """Return a problem for each group of labels that have the same tokens."""
        return [
            f"{' and '.join(map(repr, same))} have the same tokens: the vocabulary writes them "
            "alike, perhaps in lower case"
            for same in _groups(self.tokens)
        ]

    def alike_once_cut(self) -> list[str]:
        """Return a problem for each group of labels that differ only in tokens that are cut."""
        cut = {
            label: tuple(row[: self.max_tokens] for row in texts)
            for label, texts in self.tokens.items()
        }
        return [
            f"{_named(same)}: the same in the first {self.max_tokens} tokens, to which the model "
            "cuts a text; shorten them, or the templates"
            for same in _groups(cut)
            if len({self.tokens[label] for label in same}) > 1
        ]


def given_several_times(labels: Sequence[str]) -> list[str]:
    """Return a problem of labels that occur several times and would share their probability."""
    several = [label for label, count in Counter(labels).items() if count > 1]
    return [f"{_named(several)}: given several times; give each label once"] if several else []


def _groups(tokens: Mapping[str, Tokens]) -> list[list[str]]:
    """Return the groups of several labels that have the same tokens."""
    groups: dict[Tokens, list[str]] = {}
    for label, texts in tokens.items():
        groups.setdefault(texts, []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def _named(labels: Iterable[str]) -> str:
    return listing(map(repr, labels), limit=MOST_NAMED)
