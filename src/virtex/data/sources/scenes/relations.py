"""What is where in a picture, read off what can be seen of each group."""

from dataclasses import dataclass
from itertools import permutations

from virtex.data.sources.scenes.composition import Picture, Thing
from virtex.data.sources.scenes.scene_plan import Group


@dataclass(frozen=True)
class Seen:
    """A group as it is seen: all its visible things together."""

    group: Group
    count: int
    box: tuple[float, float, float, float]
    """Around all of them, as shares of the picture."""
    area: float
    """The share of the picture that they cover."""
    size: str
    """`big`, `small` or nothing to speak of."""
    things: tuple[Thing, ...]

    @property
    def floating(self) -> bool:
        return self.group.floating


@dataclass(frozen=True)
class Relation:
    """`first` is `word` (left, right, above, below, front, behind or beside) `second`."""

    first: Seen
    word: str
    second: Seen


def seen_groups(picture: Picture) -> list[Seen]:
    """The groups of which anything can be seen, the most prominent first."""
    size = len(picture.pixels)
    found = []
    for number, group in enumerate(picture.layout.groups):
        things = tuple(thing for thing in picture.things if thing.group == number)
        if not things:
            continue
        corners = list(zip(*(thing.box for thing in things), strict=True))
        box = (min(corners[0]), min(corners[1]), max(corners[2]), max(corners[3]))
        area = sum(int(thing.mask.sum()) for thing in things) / size**2
        shares = (box[0] / size, box[1] / size, box[2] / size, box[3] / size)
        found.append(
            Seen(group, len(things), shares, area, _size_word(group, things, size), things)
        )
    return sorted(found, key=lambda seen: -seen.area)


def _size_word(group: Group, things: tuple[Thing, ...], size: int) -> str:
    """Said only where the pixels and the plan agree."""
    tallest = max(thing.box[3] - thing.box[1] for thing in things) / (group.kind.height * size)
    if group.scale > 1.2 and tallest > 1.1:
        return "big"
    return "small" if group.scale < 0.8 and tallest < 0.85 else ""


def relations_between(groups: list[Seen]) -> list[Relation]:
    """All that holds, each from both sides."""
    found = []
    for first, second in permutations(groups, 2):
        words = (*_sideways(first, second), *_upright(first, second), *_in_depth(first, second))
        found += [Relation(first, word, second) for word in words]
    return found


def _sideways(first: Seen, second: Seen) -> list[str]:
    a, b = first.box, second.box
    slack = 0.12 * min(a[2] - a[0], b[2] - b[0])
    words = []
    if a[2] <= b[0] + slack:
        words.append("left")
    if a[0] >= b[2] - slack:
        words.append("right")
    gap = max(a[0] - b[2], b[0] - a[2])
    level = not first.floating and not second.floating and abs(a[3] - b[3]) < 0.16
    if level and -slack <= gap < 0.16:
        words.append("beside")
    return words


def _upright(first: Seen, second: Seen) -> list[str]:
    a, b = first.box, second.box
    if min(a[2], b[2]) - max(a[0], b[0]) < 0.3 * min(a[2] - a[0], b[2] - b[0]):
        return []
    slack = 0.1 * min(a[3] - a[1], b[3] - b[1])
    if a[3] <= b[1] + slack:
        return ["above"] if first.floating else []
    return ["below"] if a[1] >= b[3] - slack and second.floating else []


def _in_depth(first: Seen, second: Seen) -> list[str]:
    """One thing hides part of another that stands farther away."""
    if first.count > 1 or second.count > 1 or first.floating != second.floating:
        return []
    one, other = first.things[0], second.things[0]
    near, far = (one, other) if one.depth > other.depth else (other, one)
    meets = min(near.box[2], far.box[2] + 2) > max(near.box[0], far.box[0] - 2) and min(
        near.box[3], far.box[3] + 2
    ) > max(near.box[1], far.box[1] - 2)
    if not meets or far.visible > 0.97:
        return []
    return ["front" if near is one else "behind"]
