"""Captions for a scene, written from sentence forms that are true by construction."""

from collections.abc import Callable

import numpy as np

from virtex.data.sources.scenes.composition import Picture
from virtex.data.sources.scenes.relations import Seen
from virtex.data.sources.scenes.wording import Writer
from virtex.data.sources.scenes.words import NUMBERS

_RELATIONS = {
    "left": ("to the left of", "on the left of", "left of"),
    "right": ("to the right of", "on the right of", "right of"),
    "above": ("above", "over", "high above"), "below": ("below", "under", "beneath"),
    "front": ("in front of",), "behind": ("behind",),
    "beside": ("next to", "beside", "near", "close to"),
}  # fmt: skip
_RELATIVE_TO_IT = {
    "left": "to {its} left", "right": "to {its} right", "above": "above {it}",
    "below": "below {it}", "front": "in front of {it}", "behind": "behind {it}",
    "beside": "next to {it}",
}  # fmt: skip
_OPPOSITE = {
    "left": "right", "right": "left", "above": "below", "below": "above", "front": "behind",
    "behind": "front", "beside": "beside",
}  # fmt: skip
_FRONT_VIEWS = frozenset(
    ["cat", "owl", "penguin", "crab", "octopus", "butterfly", "bicycle", "sailboat", "rocket"]
) | {"hot air balloon"}
"""Animals and vehicles that face neither left nor right."""


def write_captions(picture: Picture, *, number: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Different captions, each of another form as far as the scene allows."""
    writer = Writer(picture, rng)
    captions: list[str] = []
    while len(captions) < number:
        for form in _shuffled(rng):
            caption = form(writer)
            if caption and _finished(caption) not in captions:
                captions.append(_finished(caption))
            if len(captions) == number:
                break
    return tuple(captions)


def _finished(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."


def _shuffled(rng: np.random.Generator) -> list[Callable[[Writer], str]]:
    """The sentence forms in random order, the likelier ones mostly first."""
    keys = rng.random(len(_FORMS)) ** (1 / np.array(list(_FORMS.values())))
    forms = list(_FORMS)
    return [forms[place] for place in np.argsort(-keys)]


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _doing_somewhere(w: Writer) -> str:
    seen = w.main()
    return _join(w.thing(seen), w.doing(seen), w.where(seen), w.when(0.5))


def _does_somewhere(w: Writer) -> str:
    seen = w.main()
    return _join(w.thing(seen), w.does(seen), w.where(seen), w.when(0.4))


def _same_level(w: Writer) -> list[Seen]:
    """Groups that are all on the ground, or all in the air."""
    main = w.main()
    return [
        main,
        *(seen for seen in w.some(4) if seen is not main and seen.floating == main.floating),
    ]


def _together_somewhere(w: Writer) -> str:
    together = _same_level(w)[:3]
    return _join(w.things(together), w.where(together[0]), w.when(0.5)) if len(together) > 1 else ""


def _there_is(w: Writer) -> str:
    together = _same_level(w)[:3]
    verb = "is" if together[0].count == 1 else "are"
    return _join("there", verb, w.things(together), w.where(together[0]), w.when(0.3))


def _ground_and_sky(w: Writer) -> str:
    low = [seen for seen in w.groups if not seen.floating]
    high = [seen for seen in w.groups if seen.floating]
    if not low or not high:
        return ""
    aloft = "in the background" if w.place.name in ("room", "forest") else "above"
    if w.place.name not in ("room", "forest", "underwater"):
        aloft = w.any_of(("in the sky", "overhead", "in the air"))
    return _join(w.things(low[:2]), w.where(low[0]), "with", w.things(high[:2]), aloft)


def _related(w: Writer) -> str:
    found = w.relation()
    if not found:
        return ""
    return _join(
        w.thing(found.first), w.any_of(_RELATIONS[found.word]), w.thing(found.second), w.when(0.4)
    )


def _is_related(w: Writer) -> str:
    found = w.relation()
    if not found:
        return ""
    verb = "is" if found.first.count == 1 else "are"
    return _join(w.the(found.first), verb, w.any_of(_RELATIONS[found.word]), w.the(found.second))


def _does_related(w: Writer) -> str:
    found = w.relation()
    if not found or (found.first.floating and found.word in ("left", "right")):
        return ""
    return _join(
        w.thing(found.first),
        w.does(found.first),
        w.any_of(_RELATIONS[found.word]),
        w.thing(found.second),
        "" if found.second.floating else w.where(found.second),
    )


def _with_it(w: Writer) -> str:
    found = w.relation()
    if not found:
        return ""
    its, it = ("its", "it") if found.first.count == 1 else ("their", "them")
    where = _RELATIVE_TO_IT[_OPPOSITE[found.word]].format(its=its, it=it)
    return _join(w.thing(found.first), "with", w.thing(found.second), where)


def _left_and_right(w: Writer) -> str:
    found = w.relation("left")
    if not found:
        return ""
    left, right = w.thing(found.first), w.thing(found.second)
    return w.any_of(
        (
            f"{left} on the left and {right} on the right",
            f"on the left {'is' if found.first.count == 1 else 'are'} {left}, on the right {right}",
            f"{right} on the right, {left} on the left",
            f"to the right of {left} {'is' if found.second.count == 1 else 'are'} {right}",
        )
    )


def _place_first(w: Writer) -> str:
    seen = w.main()
    found = [r for r in w.relations if r.first is seen and r.word in ("beside", "behind", "front")]
    tail = ""
    if found:
        chosen = found[w.rng.integers(len(found))]
        tail = f"{w.any_of(_RELATIONS[chosen.word])} {w.thing(chosen.second)}"
    return _join(f"{w.where(seen)},", w.thing(seen), w.does(seen), tail)


def _light_first(w: Writer) -> str:
    when = w.when()
    seen = w.main()
    return _join(f"{when},", w.thing(seen), w.does(seen), w.where(seen)) if when else ""


def _setting_with(w: Writer) -> str:
    return _join(w.setting(), "with", w.things(w.some(3)))


def _setting_has(w: Writer) -> str:
    seen = w.some(3)
    if w.place.name in ("sky", "space", "underwater"):
        return ""
    noun = w.place.nouns[0].split(" ", 1)[1]
    return _join(w.any_of(("this", "the")), noun, "has", w.things(seen), w.when(0.4))


def _picture_of(w: Writer) -> str:
    kind = w.any_of(("picture", "drawing", "image", "view", "scene"))
    if kind == "scene":
        return _join("a scene with", w.things(w.some(3)), w.when(0.4))
    return _join("a" if kind != "image" else "an", kind, "of", w.things(w.some(3)), w.when(0.4))


def _bare_list(w: Writer) -> str:
    return _join(w.things(w.some(3)), w.when(0.5))


def _visible(w: Writer) -> str:
    together = _same_level(w)[:3]
    return _join(
        w.any_of(("you can see", "we see", "here we have", "this shows")),
        w.things(together),
        w.where(together[0]),
    )


def _coloured(w: Writer) -> str:
    seen = [s for s in w.some(4) if len(s.group.kind.colours) > 1 and s.group.kind.name != "person"]
    clauses = [f"{w.the(s)} {'is' if s.count == 1 else 'are'} {s.group.colour}" for s in seen[:2]]
    if not clauses:
        return ""
    if len(clauses) == 1:
        verb = "is" if seen[0].count == 1 else "are"
        return _join(w.the(seen[0]), w.where(seen[0]), verb, seen[0].group.colour)
    return " and ".join(clauses)


def _counted(w: Writer) -> str:
    many = [seen for seen in w.groups if seen.count > 1]
    if not many:
        return ""
    seen = many[w.rng.integers(len(many))]
    exact = f"{NUMBERS[seen.count]} {w.described(seen)}"
    return w.any_of(
        (
            _join(exact, w.doing(seen), "together", w.where(seen)),
            _join(f"there are {exact}", w.where(seen), w.when(0.4)),
            _join(
                exact,
                "side by side" if seen.count == 2 and not seen.floating else "together",
                w.where(seen),
            ),
        )
    )


def _over(w: Writer) -> str:
    found = w.relation("above")
    if not found:
        return ""
    return _join(
        w.thing(found.first),
        w.does(found.first),
        w.any_of(("above", "over")),
        w.thing(found.second),
        "" if found.second.floating else w.where(found.second),
    )


def _hidden(w: Writer) -> str:
    found = w.relation("front")
    if not found:
        return ""
    front, back = w.thing(found.first), w.thing(found.second)
    return w.any_of(
        (
            _join(front, w.does(found.first), "in front of", back, w.when(0.3)),
            _join(back, "behind", front, w.where(found.first)),
            _join(back, "partly hidden by", front),
        )
    )


def _facing(w: Writer) -> str:
    seen = w.main()
    kind = seen.group.kind
    if kind.family not in ("animal", "vehicle") or kind.name in _FRONT_VIEWS:
        return ""
    return _join(
        w.thing(seen),
        "facing",
        w.any_of((seen.group.faces, f"to the {seen.group.faces}")),
        w.where(seen),
    )


def _while_clause(w: Writer) -> str:
    seen = w.some(2)
    if len(seen) < 2:
        return ""
    first, second = seen
    return _join(
        w.thing(first),
        w.does(first),
        w.where(first),
        "while",
        w.thing(second),
        w.does(second),
        w.any_of(("nearby", "close by")) if first.floating == second.floating else w.where(second),
    )


_FORMS: dict[Callable[[Writer], str], float] = {
    _doing_somewhere: 1.6, _does_somewhere: 0.9, _together_somewhere: 2.0, _there_is: 1.4,
    _ground_and_sky: 1.6, _related: 1.6, _is_related: 0.7, _does_related: 1.2, _with_it: 1.2,
    _left_and_right: 1.2, _place_first: 1.0, _light_first: 0.8, _setting_with: 1.4,
    _setting_has: 0.7, _picture_of: 1.0, _bare_list: 1.0, _visible: 0.7, _coloured: 0.6,
    _counted: 1.0, _over: 0.8, _hidden: 1.4, _facing: 0.5, _while_clause: 0.6,
}  # fmt: skip
"""The sentence forms, and how readily each is used where it fits."""
