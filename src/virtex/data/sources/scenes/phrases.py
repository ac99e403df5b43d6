"""Words for the parts of a picture: nouns with their adjectives, verbs, places, light."""

from collections.abc import Sequence

import numpy as np

from virtex.data.sources.scenes.composition import Picture
from virtex.data.sources.scenes.nouns import NUMBERS, plural_of, with_article
from virtex.data.sources.scenes.relations import Relation, Seen, relations_between, seen_groups
from virtex.data.sources.scenes.settings import LIGHT_ADJECTIVES, LIGHT_PHRASES

_FINITE = {
    "standing": ("stands", "stand"), "sitting": ("sits", "sit"), "lying": ("lies", "lie"),
    "flying": ("flies", "fly"), "floating": ("floats", "float"), "shining": ("shines", "shine"),
    "swimming": ("swims", "swim"), "sailing": ("sails", "sail"), "growing": ("grows", "grow"),
    "resting": ("rests", "rest"), "parked": ("is parked", "are parked"),
    "pitched": ("is pitched", "are pitched"),
}  # fmt: skip


class Writer:
    """Words for the parts of one picture; each call may word it differently."""

    def __init__(self, picture: Picture, rng: np.random.Generator) -> None:
        self.rng = rng
        self.place = picture.layout.place
        self.light = picture.layout.light
        self.groups = seen_groups(picture)
        self.relations = relations_between(self.groups)

    def any_of(self, options: Sequence[str]) -> str:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))] if options else ""

    def likely(self, prob: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < prob)

    def main(self) -> Seen:
        """A group, the more prominent the likelier."""
        weights = np.sqrt([seen.area for seen in self.groups])
        return self.groups[self.rng.choice(len(self.groups), p=weights / weights.sum())]

    def some(self, most: int = 3) -> list[Seen]:
        """Most or all groups in random order."""
        order = self.rng.permutation(len(self.groups))[:most]
        return [self.groups[index] for index in order]

    def relation(self, *words: str) -> Relation | None:
        """Something that holds between two groups, of these words or of any."""
        fitting = [r for r in self.relations if not words or r.word in words]
        return fitting[self.rng.integers(len(fitting))] if fitting else None

    def noun(self, seen: Seen) -> str:
        """One of the kind's nouns, in the number that is seen."""
        kind = seen.group.kind
        noun = kind.name
        if kind.synonyms and self.likely(0.25):
            noun = self.any_of(kind.synonyms)
        return noun if seen.count == 1 else plural_of(noun, kind)

    def described(self, seen: Seen) -> str:
        """The noun with what is told about size, colour and pattern, without article."""
        group = seen.group
        if group.kind.name == "person":
            return self._dressed_person(seen)
        words = []
        if seen.size and self.likely(0.7):
            words.append(
                self.any_of(("big", "large") if seen.size == "big" else ("small", "little"))
            )
        if len(group.kind.colours) > 1 and self.likely(0.72):
            words.append(group.colour)
        if group.pattern != "plain" and self.likely(0.8):
            words.append(group.pattern)
        return " ".join((*words, self.noun(seen)))

    def _dressed_person(self, seen: Seen) -> str:
        noun = self.noun(seen)
        if not self.likely(0.7):
            return noun
        colour = seen.group.colour
        shirt = with_article(f"{colour} shirt") if seen.count == 1 else f"{colour} shirts"
        return f"{noun} {self.any_of(('in', 'wearing'))} {shirt}"

    def thing(self, seen: Seen) -> str:
        """An indefinite phrase: `a red car`, `two dogs`, `the sun`."""
        described = self.described(seen)
        if seen.count == 1:
            if seen.group.kind.name in ("sun", "moon") and self.place.name != "space":
                return f"the {described}"
            return f"one {described}" if self.likely(0.04) else with_article(described)
        quantity = NUMBERS[seen.count]
        if self.likely(0.3):
            vague = (
                ("several", "some", "a group of")
                if seen.count > 2
                else ("a pair of", "a couple of")
            )
            quantity = self.any_of(vague)
        return f"{quantity} {described}"

    def the(self, seen: Seen) -> str:
        """A definite phrase: `the dogs`."""
        return f"the {self.noun(seen)}"

    def things(self, seen: Sequence[Seen]) -> str:
        """A list: `a dog, two cats and a tree`."""
        phrases = [self.thing(one) for one in seen]
        return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"

    def doing(self, seen: Seen) -> str:
        """The participle of what they do."""
        verb = seen.group.kind.verb
        if self.place.name == "underwater":
            return "swimming" if seen.floating else "resting"
        return verb

    def does(self, seen: Seen) -> str:
        """The finite verb for it."""
        return _FINITE[self.doing(seen)][seen.count > 1]

    def where(self, seen: Seen) -> str:
        """Where they are."""
        if not seen.floating:
            return self.any_of(self.place.phrases)
        outdoors = "bird" in self.place.floating and self.place.name != "forest"
        return "in the sky" if outdoors and self.likely(0.5) else self.any_of(self.place.over)

    def when(self, prob: float = 1.0) -> str:
        """The light as a phrase to end on, or nothing."""
        plain = self.light == "day" and self.place.name in (
            "room", "table", "workbench", "underwater", "space",
        )  # fmt: skip
        prob *= 0.45 if self.light == "day" else 1.0
        return "" if plain or not self.likely(prob) else self.any_of(LIGHT_PHRASES[self.light])

    def setting(self) -> str:
        """The place as a noun phrase, its light perhaps as an adjective."""
        article, noun = self.any_of(self.place.nouns).split(" ", 1)
        if article == "open":
            return f"{article} {noun}"
        if self.light in ("day", "lamplight") or not self.likely(0.6):
            return f"{article} {noun}"
        phrase = f"{self.any_of(LIGHT_ADJECTIVES[self.light])} {noun}"
        return f"the {phrase}" if article == "the" else with_article(phrase)
