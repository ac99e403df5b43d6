"""Write captions of a scene from sentence forms that are true by construction."""

from collections.abc import Callable, Sequence

import numpy as np

from virtex.data.sources.scenes.composition import DrawnScene
from virtex.data.sources.scenes.nouns import NUMBERS
from virtex.data.sources.scenes.phrases import Writer
from virtex.data.sources.scenes.relations import Relation, VisibleGroup

Form = Callable[[Writer], str]
"""Writer of a caption without capital and full stop, or of nothing where it does not fit."""

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


def write_captions(scene: DrawnScene, *, number: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Return different captions, each of another form as far as the scene allows."""
    writer = Writer(scene, rng)
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


def _shuffled(rng: np.random.Generator) -> list[Form]:
    """Return the sentence forms in random order, the likelier ones mostly first."""
    keys = rng.random(len(_FORMS)) ** (1 / np.array([weight for _, weight in _FORMS]))
    return [_FORMS[index][0] for index in np.argsort(-keys)]


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _be(seen: VisibleGroup) -> str:
    return "is" if seen.count == 1 else "are"


def _doing_somewhere(w: Writer) -> str:
    seen = w.main()
    return _join(w.phrase(seen), w.doing(seen), w.where(seen), w.when(0.5))


def _does_somewhere(w: Writer) -> str:
    seen = w.main()
    return _join(w.phrase(seen), w.does(seen), w.where(seen), w.when(0.4))


def _same_level(w: Writer) -> list[VisibleGroup]:
    """Return groups that are all on the ground, or all in the air."""
    main = w.main()
    return [
        main,
        *(seen for seen in w.some(4) if seen is not main and seen.floating == main.floating),
    ]


def _together_somewhere(w: Writer) -> str:
    together = _same_level(w)[:3]
    if len(together) < 2:
        return ""
    return _join(w.phrases(together), w.where(together[0]), w.when(0.5))


def _there_is(w: Writer) -> str:
    together = _same_level(w)[:3]
    return _join("there", _be(together[0]), w.phrases(together), w.where(together[0]), w.when(0.3))


def _ground_and_sky(w: Writer) -> str:
    low = [seen for seen in w.groups if not seen.floating]
    high = [seen for seen in w.groups if seen.floating]
    if not low or not high:
        return ""
    aloft = "in the background" if w.setting.name in ("room", "forest") else "above"
    if w.setting.name not in ("room", "forest", "underwater"):
        aloft = w.any_of(("in the sky", "overhead", "in the air"))
    return _join(w.phrases(low[:2]), w.where(low[0]), "with", w.phrases(high[:2]), aloft)


def _related(w: Writer, found: Relation) -> str:
    return _join(
        w.phrase(found.first), w.any_of(_RELATIONS[found.word]), w.phrase(found.second), w.when(0.4)
    )


def _is_related(w: Writer, found: Relation) -> str:
    first, second = found.first, found.second
    return _join(w.the(first), _be(first), w.any_of(_RELATIONS[found.word]), w.the(second))


def _does_related(w: Writer, found: Relation) -> str:
    if found.first.floating and found.word in ("left", "right"):
        return ""
    return _does_at(w, found, _RELATIONS[found.word])


def _over(w: Writer, found: Relation) -> str:
    return _does_at(w, found, ("above", "over"))


def _does_at(w: Writer, found: Relation, words: Sequence[str]) -> str:
    """Say what the first group does and where, seen from the second one."""
    phrases = [w.phrase(found.first), w.does(found.first), w.any_of(words), w.phrase(found.second)]
    return _join(*phrases, "" if found.second.floating else w.where(found.second))


def _with_it(w: Writer, found: Relation) -> str:
    its, it = ("its", "it") if found.first.count == 1 else ("their", "them")
    where = _RELATIVE_TO_IT[_OPPOSITE[found.word]].format(its=its, it=it)
    return _join(w.phrase(found.first), "with", w.phrase(found.second), where)


def _left_and_right(w: Writer, found: Relation) -> str:
    left, right = w.phrase(found.first), w.phrase(found.second)
    forms = (
        f"{left} on the left and {right} on the right",
        f"on the left {_be(found.first)} {left}, on the right {right}",
        f"{right} on the right, {left} on the left",
        f"to the right of {left} {_be(found.second)} {right}",
    )
    return w.any_of(forms)


def _setting_first(w: Writer) -> str:
    seen = w.main()
    found = [r for r in w.relations if r.first is seen and r.word in ("beside", "behind", "front")]
    tail = ""
    if found:
        chosen = found[w.rng.integers(len(found))]
        tail = f"{w.any_of(_RELATIONS[chosen.word])} {w.phrase(chosen.second)}"
    return _join(f"{w.where(seen)},", w.phrase(seen), w.does(seen), tail)


def _light_first(w: Writer) -> str:
    when = w.when()
    seen = w.main()
    return _join(f"{when},", w.phrase(seen), w.does(seen), w.where(seen)) if when else ""


def _setting_with(w: Writer) -> str:
    return _join(w.setting_phrase(), "with", w.phrases(w.some(3)))


def _setting_has(w: Writer) -> str:
    seen = w.some(3)
    if w.setting.name in ("sky", "space", "underwater"):
        return ""
    noun = w.setting.nouns[0].split(" ", 1)[1]
    return _join(w.any_of(("this", "the")), noun, "has", w.phrases(seen), w.when(0.4))


def _image_of(w: Writer) -> str:
    kind = w.any_of(("picture", "drawing", "image", "view", "scene"))
    if kind == "scene":
        return _join("a scene with", w.phrases(w.some(3)), w.when(0.4))
    return _join("a" if kind != "image" else "an", kind, "of", w.phrases(w.some(3)), w.when(0.4))


def _bare_list(w: Writer) -> str:
    return _join(w.phrases(w.some(3)), w.when(0.5))


def _visible(w: Writer) -> str:
    together = _same_level(w)[:3]
    opening = w.any_of(("you can see", "we see", "here we have", "this shows"))
    return _join(opening, w.phrases(together), w.where(together[0]))


def _colored(w: Writer) -> str:
    seen = [s for s in w.some(4) if len(s.group.kind.colors) > 1 and s.group.kind.name != "person"]
    clauses = [f"{w.the(s)} {_be(s)} {s.group.color}" for s in seen[:2]]
    if not clauses:
        return ""
    if len(clauses) == 1:
        return _join(w.the(seen[0]), w.where(seen[0]), _be(seen[0]), seen[0].group.color)
    return " and ".join(clauses)


def _counted(w: Writer) -> str:
    many = [seen for seen in w.groups if seen.count > 1]
    if not many:
        return ""
    seen = many[w.rng.integers(len(many))]
    exact = f"{NUMBERS[seen.count]} {w.described(seen)}"
    together = "side by side" if seen.count == 2 and not seen.floating else "together"
    forms = (
        _join(exact, w.doing(seen), "together", w.where(seen)),
        _join(f"there are {exact}", w.where(seen), w.when(0.4)),
        _join(exact, together, w.where(seen)),
    )
    return w.any_of(forms)


def _hidden(w: Writer, found: Relation) -> str:
    front, back = w.phrase(found.first), w.phrase(found.second)
    forms = (
        _join(front, w.does(found.first), "in front of", back, w.when(0.3)),
        _join(back, "behind", front, w.where(found.first)),
        _join(back, "partly hidden by", front),
    )
    return w.any_of(forms)


def _facing(w: Writer) -> str:
    seen = w.main()
    kind = seen.group.kind
    if kind.family not in ("animal", "vehicle") or kind.name in _FRONT_VIEWS:
        return ""
    side = seen.group.faces
    return _join(w.phrase(seen), "facing", w.any_of((side, f"to the {side}")), w.where(seen))


def _while_clause(w: Writer) -> str:
    seen = w.some(2)
    if len(seen) < 2:
        return ""
    first, second = seen
    clauses = [w.phrase(first), w.does(first), w.where(first), "while", w.phrase(second)]
    clauses.append(w.does(second))
    near = first.floating == second.floating
    return _join(*clauses, w.any_of(("nearby", "close by")) if near else w.where(second))


def _when_related(form: Callable[[Writer, Relation], str], *words: str) -> Form:
    """Return a form that needs two related groups, related by one of the words if there are any."""

    def write(w: Writer) -> str:
        found = w.relation(*words)
        return form(w, found) if found else ""

    return write


_FORMS: tuple[tuple[Form, float], ...] = (
    (_doing_somewhere, 1.6), (_does_somewhere, 0.9), (_together_somewhere, 2.0), (_there_is, 1.4),
    (_ground_and_sky, 1.6), (_when_related(_related), 1.6), (_when_related(_is_related), 0.7),
    (_when_related(_does_related), 1.2), (_when_related(_with_it), 1.2),
    (_when_related(_left_and_right, "left"), 1.2), (_setting_first, 1.0), (_light_first, 0.8),
    (_setting_with, 1.4), (_setting_has, 0.7), (_image_of, 1.0), (_bare_list, 1.0),
    (_visible, 0.7), (_colored, 0.6), (_counted, 1.0), (_when_related(_over, "above"), 0.8),
    (_when_related(_hidden, "front"), 1.4), (_facing, 0.5), (_while_clause, 0.6),
)  # fmt: skip
"""Sentence forms with their relative frequency where they fit."""
