"""Find the relations between the visible groups of a scene."""

from dataclasses import dataclass
from itertools import permutations

from virtex.data.sources.scenes.composition import DrawnScene, VisibleObject
from virtex.data.sources.scenes.scene_plan import Group


@dataclass(frozen=True)
class VisibleGroup:
    """Visible objects of one group."""

    group: Group
    count: int
    box: tuple[float, float, float, float]
    """Corners x1, y1, x2, y2 around all of them, as shares of the image."""
    area: float
    """Share of the image that they cover."""
    size: str
    """Word for an unusual size, `big` or `small`, or empty."""
    objects: tuple[VisibleObject, ...]

    @property
    def floating(self) -> bool:
        return self.group.floating


@dataclass(frozen=True)
class Relation:
    """Relation of two groups: left, right, above, below, front, behind or beside."""

    first: VisibleGroup
    word: str
    second: VisibleGroup


def visible_groups(scene: DrawnScene) -> list[VisibleGroup]:
    """Return the groups of which anything is visible, the most prominent first."""
    size = len(scene.pixels)
    found = []
    for number, group in enumerate(scene.plan.groups):
        objects = tuple(drawn for drawn in scene.objects if drawn.group == number)
        if not objects:
            continue
        corners = list(zip(*(drawn.box for drawn in objects), strict=True))
        box = (min(corners[0]), min(corners[1]), max(corners[2]), max(corners[3]))
        area = sum(int(drawn.mask.sum()) for drawn in objects) / size**2
        shares = (box[0] / size, box[1] / size, box[2] / size, box[3] / size)
        word = _size_word(group, objects, size)
        found.append(VisibleGroup(group, len(objects), shares, area, word, objects))
    return sorted(found, key=lambda seen: -seen.area)


def _size_word(group: Group, objects: tuple[VisibleObject, ...], size: int) -> str:
    """Return a word for the size only where the pixels and the plan agree."""
    tallest = max(drawn.box[3] - drawn.box[1] for drawn in objects) / (group.kind.height * size)
    if group.scale > 1.2 and tallest > 1.1:
        return "big"
    return "small" if group.scale < 0.8 and tallest < 0.85 else ""


def relations_between(groups: list[VisibleGroup]) -> list[Relation]:
    """Return all relations that hold, each from both sides."""
    found = []
    for first, second in permutations(groups, 2):
        words = (*_sideways(first, second), *_upright(first, second), *_in_depth(first, second))
        found += [Relation(first, word, second) for word in words]
    return found


def _sideways(first: VisibleGroup, second: VisibleGroup) -> list[str]:
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


def _upright(first: VisibleGroup, second: VisibleGroup) -> list[str]:
    a, b = first.box, second.box
    if min(a[2], b[2]) - max(a[0], b[0]) < 0.3 * min(a[2] - a[0], b[2] - b[0]):
        return []
    slack = 0.1 * min(a[3] - a[1], b[3] - b[1])
    if a[3] <= b[1] + slack:
        return ["above"] if first.floating else []
    return ["below"] if a[1] >= b[3] - slack and second.floating else []


def _in_depth(first: VisibleGroup, second: VisibleGroup) -> list[str]:
    """Return the word where one object hides part of another that stands farther away."""
    if first.count > 1 or second.count > 1 or first.floating != second.floating:
        return []
    one, other = first.objects[0], second.objects[0]
    near, far = (one, other) if one.depth > other.depth else (other, one)
    meets = min(near.box[2], far.box[2] + 2) > max(near.box[0], far.box[0] - 2) and min(
        near.box[3], far.box[3] + 2
    ) > max(near.box[1], far.box[1] - 2)
    if not meets or far.visible > 0.97:
        return []
    return ["front" if near is one else "behind"]
