"""Phrases for the parts of a scene: nouns with adjectives, verbs, setting, light."""

from collections.abc import Sequence

import numpy as np

from virtex.data.sources.scenes.composition import DrawnScene
from virtex.data.sources.scenes.nouns import NUMBERS, plural_of, with_article
from virtex.data.sources.scenes.relations import (
    Relation,
    VisibleGroup,
    relations_between,
    visible_groups,
)
from virtex.data.sources.scenes.settings import LIGHT_ADJECTIVES, LIGHT_PHRASES

_FINITE = {
    "standing": ("stands", "stand"), "sitting": ("sits", "sit"), "lying": ("lies", "lie"),
    "flying": ("flies", "fly"), "floating": ("floats", "float"), "shining": ("shines", "shine"),
    "swimming": ("swims", "swim"), "sailing": ("sails", "sail"), "growing": ("grows", "grow"),
    "resting": ("rests", "rest"), "parked": ("is parked", "are parked"),
    "pitched": ("is pitched", "are pitched"),
}  # fmt: skip
_SIZES = {"big": ("big", "large"), "small": ("small", "little")}
_PAIR, _SEVERAL = ("a pair of", "a couple of"), ("several", "some", "a group of")


class Writer:
    """Writer of phrases for one scene; each call may word a phrase differently."""

    def __init__(self, scene: DrawnScene, rng: np.random.Generator) -> None:
        self.rng = rng
        self.setting = scene.plan.setting
        self.light = scene.plan.light
        self.groups = visible_groups(scene)
        self.relations = relations_between(self.groups)

    def any_of(self, options: Sequence[str]) -> str:
        """Return one of the options at random, or nothing if there are none."""
        return options[int(self.rng.integers(len(options)))] if options else ""

    def likely(self, prob: float) -> bool:
        """Return true with this probability."""
        return bool(self.rng.random() < prob)

    def main(self) -> VisibleGroup:
        """Return a group, a more prominent one with a higher probability."""
        weights = np.sqrt([seen.area for seen in self.groups])
        return self.groups[self.rng.choice(len(self.groups), p=weights / weights.sum())]

    def some(self, most: int = 3) -> list[VisibleGroup]:
        """Return some groups, or all, in random order."""
        order = self.rng.permutation(len(self.groups))[:most]
        return [self.groups[index] for index in order]

    def relation(self, *words: str) -> Relation | None:
        """Return a relation between two groups, of one of the words if there are any."""
        fitting = [r for r in self.relations if not words or r.word in words]
        return fitting[self.rng.integers(len(fitting))] if fitting else None

    def noun(self, seen: VisibleGroup) -> str:
        """Return one of the kind's nouns, singular or plural as the count is."""
        kind = seen.group.kind
        noun = kind.name
        if kind.synonyms and self.likely(0.25):
            noun = self.any_of(kind.synonyms)
        return noun if seen.count == 1 else plural_of(noun, kind)

    def described(self, seen: VisibleGroup) -> str:
        """Return the noun with adjectives of size, color and pattern, without article."""
        group = seen.group
        if group.kind.name == "person":
            return self._dressed_person(seen)
        words = []
        if seen.size and self.likely(0.7):
            words.append(self.any_of(_SIZES[seen.size]))
        if len(group.kind.colors) > 1 and self.likely(0.72):
            words.append(group.color)
        if group.pattern != "plain" and self.likely(0.8):
            words.append(group.pattern)
        return " ".join((*words, self.noun(seen)))

    def _dressed_person(self, seen: VisibleGroup) -> str:
        noun = self.noun(seen)
        if not self.likely(0.7):
            return noun
        color = seen.group.color
        shirt = with_article(f"{color} shirt") if seen.count == 1 else f"{color} shirts"
        return f"{noun} {self.any_of(('in', 'wearing'))} {shirt}"

    def phrase(self, seen: VisibleGroup) -> str:
        """Return an indefinite phrase: `a red car`, `two dogs`, `the sun`."""
        described = self.described(seen)
        if seen.count == 1:
            if seen.group.kind.name in ("sun", "moon") and self.setting.name != "space":
                return f"the {described}"
            return f"one {described}" if self.likely(0.04) else with_article(described)
        quantity = NUMBERS[seen.count]
        if self.likely(0.3):
            quantity = self.any_of(_PAIR if seen.count == 2 else _SEVERAL)
        return f"{quantity} {described}"

    def the(self, seen: VisibleGroup) -> str:
        """Return a definite phrase: `the dogs`."""
        return f"the {self.noun(seen)}"

    def phrases(self, seen: Sequence[VisibleGroup]) -> str:
        """Return a list: `a dog, two cats and a tree`."""
        phrases = [self.phrase(one) for one in seen]
        return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"

    def doing(self, seen: VisibleGroup) -> str:
        """Return the participle of the verb."""
        verb = seen.group.kind.verb
        if self.setting.name == "underwater":
            return "swimming" if seen.floating else "resting"
        return verb

    def does(self, seen: VisibleGroup) -> str:
        """Return the finite verb."""
        return _FINITE[self.doing(seen)][seen.count > 1]

    def where(self, seen: VisibleGroup) -> str:
        """Return a phrase for the position."""
        if not seen.floating:
            return self.any_of(self.setting.phrases)
        outdoors = "bird" in self.setting.floating and self.setting.name != "forest"
        return "in the sky" if outdoors and self.likely(0.5) else self.any_of(self.setting.over)

    def when(self, prob: float = 1.0) -> str:
        """Return a phrase for the light that may end a sentence, or nothing."""
        plain = self.light == "day" and self.setting.name in (
            "room", "table", "workbench", "underwater", "space",
        )  # fmt: skip
        prob *= 0.45 if self.light == "day" else 1.0
        return "" if plain or not self.likely(prob) else self.any_of(LIGHT_PHRASES[self.light])

    def setting_phrase(self) -> str:
        """Return the setting as a noun phrase, its light perhaps as an adjective."""
        article, noun = self.any_of(self.setting.nouns).split(" ", 1)
        plain = article == "open" or self.light in ("day", "lamplight")
        if plain or not self.likely(0.6):
            return f"{article} {noun}"
        phrase = f"{self.any_of(LIGHT_ADJECTIVES[self.light])} {noun}"
        return f"the {phrase}" if article == "the" else with_article(phrase)
