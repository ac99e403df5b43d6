"""Plan the objects of a scene and their positions, before anything is drawn.

All lengths are shares of the image's width, which is also its height.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from virtex.data.sources.scenes.drawing import Look
from virtex.data.sources.scenes.kinds import KIND_IDS, KINDS, Kind
from virtex.data.sources.scenes.palette import COLORS, LIGHTS, RGB
from virtex.data.sources.scenes.settings import SETTINGS, Setting

_GROUP_COUNTS = (0.18, 0.42, 0.28, 0.12)
"""Probabilities that a scene holds 1, 2, 3, 4 kinds of object."""
_SKEW = 1.8
"""Exponent of the weights of kinds and settings; a higher one gives a longer tail of rare kinds."""
_NEVER_IN = {
    "sun": ("night", "fog", "rain"), "moon": ("day", "fog", "rain"), "cloud": ("fog", "night"),
    "rainbow": ("dusk", "night", "fog"), "butterfly": ("night", "rain", "fog"),
    "hot air balloon": ("rain",), "kite": ("night",),
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Group of objects of one kind, alike in color and size."""

    kind: Kind
    color: str
    """Name of the color; empty where captions do not name it."""
    pattern: str
    scale: float
    """Size relative to the kind's usual one."""
    floating: bool
    faces: str
    """Side that the objects face, `left` or `right`."""


@dataclass(frozen=True)
class PlannedObject:
    """Position and appearance of one object."""

    group: int
    """Index of its group."""
    x: float
    """Horizontal position of the middle."""
    y: float
    """Vertical position of the feet, or of the middle of a floating object."""
    height: float
    look: Look


@dataclass(frozen=True)
class ScenePlan:
    """Plan of a scene; `objects` are ordered from the back to the front."""

    setting: Setting
    light: str
    groups: tuple[Group, ...]
    objects: tuple[PlannedObject, ...]


def plan_scene(rng: np.random.Generator) -> ScenePlan:
    """Return a random plan."""
    setting = SETTINGS[_pick(rng, [setting.weight**_SKEW for setting in SETTINGS])]
    lights = list(setting.lights)
    light = lights[_pick(rng, [setting.lights[name] for name in lights])]
    groups = _choose_groups(rng, setting, light)
    counts = _choose_counts(rng, groups)
    spots = _stand(rng, setting, groups, counts)
    _add_floating(rng, setting, groups, counts, spots)
    spots.sort(key=lambda spot: (not groups[spot.group].floating, spot.y))
    objects = [_planned_object(rng, light, groups[spot.group], spot) for spot in spots]
    return ScenePlan(setting, light, tuple(groups), tuple(objects))


@dataclass(frozen=True)
class _Spot:
    """Position of an object whose look is not chosen yet."""

    group: int
    x: float
    y: float
    width: float
    height: float

    def extent(self, *, floating: bool) -> tuple[float, float, float, float]:
        top = self.y - self.height * (0.5 if floating else 1.0)
        return (self.x - self.width / 2, top, self.x + self.width / 2, top + self.height)


def _pick(rng: np.random.Generator, weights: Sequence[float]) -> int:
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))


def _choose_groups(rng: np.random.Generator, setting: Setting, light: str) -> list[Group]:
    wanted = 1 + _pick(rng, _GROUP_COUNTS)
    standing, floating = _possible(setting.standing, light), _possible(setting.floating, light)
    groups: list[Group] = []
    for _ in range(wanted):
        num_floating = sum(group.floating for group in groups)
        may_float = bool(groups) or setting.aloft > 0.5
        aloft = bool(floating) and (not standing or (may_float and rng.random() < setting.aloft))
        if aloft and standing and num_floating >= 2 and setting.aloft < 0.5:
            aloft = False
        options = floating if aloft else standing
        if not options:
            continue
        kind = options[_pick(rng, [kind.weight**_SKEW for kind in options])]
        groups.append(_dress(rng, kind, floating=aloft))
        standing = [other for other in standing if other is not kind]
        floating = [other for other in floating if other is not kind]
        if kind.name in ("sun", "moon"):
            floating = [other for other in floating if other.name not in ("sun", "moon")]
    return groups


def _possible(names: Sequence[str], light: str) -> list[Kind]:
    return [KINDS[KIND_IDS[name]] for name in names if light not in _NEVER_IN.get(name, ())]


def _dress(rng: np.random.Generator, kind: Kind, *, floating: bool) -> Group:
    color = kind.colors[rng.integers(len(kind.colors))] if kind.colors else ""
    patterned = kind.patterned and rng.random() < 0.4
    pattern = ("striped", "spotted")[rng.integers(2)] if patterned else "plain"
    size = rng.random()
    scale = rng.uniform(0.66, 0.76) if size < 0.16 else rng.uniform(0.92, 1.08)
    if size > 0.82:
        scale = rng.uniform(1.24, 1.36)
    return Group(kind, color, pattern, float(scale), floating, ("left", "right")[rng.integers(2)])


def _choose_counts(rng: np.random.Generator, groups: list[Group]) -> list[int]:
    """Return the number of objects in each group, at most eight in all."""
    counts = [1] * len(groups)
    for number, group in enumerate(groups):
        most = min(group.kind.most, 9 - sum(counts) - (len(groups) - 2) * 2)
        if most >= 2 and rng.random() < 0.36:
            counts[number] = min(most, 2 + _pick(rng, (0.47, 0.26, 0.13, 0.08, 0.06)))
    return counts


def _size(group: Group, count: int, *, near: float) -> tuple[float, float]:
    """Return width and height of one object; `near` is 0 in the background and 1 up front."""
    crowd = (1.0, 1.0, 0.86, 0.76, 0.68, 0.62, 0.58, 0.55)[min(count, 7)]
    height = group.kind.height * group.scale * crowd * (0.90 + 0.2 * near)
    aspect = group.kind.canvas[0] / group.kind.canvas[1]
    height = min(height, 0.86 / aspect, 0.86)
    return height * aspect, height


@dataclass(frozen=True)
class _Standing:
    """Group on the ground, before its objects are set side by side."""

    number: int
    count: int
    width: float
    """Width of one object."""
    height: float
    feet: float
    far: bool

    @property
    def abreast(self) -> int:
        """Number of objects in the front row: half where one row would be too long."""
        if self.count * self.width < 0.62 or self.height > 0.8 * self.width:
            return self.count
        return -(-self.count // 2)

    @property
    def breadth(self) -> float:
        """Width of the whole group; a second row may stand half an object further right."""
        columns = self.abreast + 0.5 * (self.abreast < self.count == 2 * self.abreast)
        return self.width * (0.10 + 0.92 * columns)


def _stand(
    rng: np.random.Generator, setting: Setting, groups: list[Group], counts: list[int]
) -> list[_Spot]:
    """Set groups side by side on the ground, perhaps a small object in front of a big one."""
    alone = counts == [1]
    members = []
    for number, group in enumerate(groups):
        if group.floating:
            continue
        near = rng.random()
        low, high = setting.far if group.kind.far else setting.near
        feet = low + (high - low) * near
        width, height = _size(group, counts[number], near=near)
        grow = min(1.3, 0.8 / width, 0.8 / height) if alone else 1.0
        grow = min(grow, (feet - 0.02) / height)
        size = (width * grow, height * grow)
        members.append(_Standing(number, counts[number], *size, feet, group.kind.far))
    if not members:
        return []
    pair = _overlapping_pair(members) if rng.random() <= 0.4 else None
    if pair is None:
        return _in_a_row(rng, members)
    front, back = pair
    spots = _in_a_row(rng, [member for member in members if member is not front])
    return [*spots, _in_front(rng, front, back, spots)]


def _overlapping_pair(members: list[_Standing]) -> tuple[_Standing, _Standing] | None:
    """Return a small object and a big one that it may stand in front of."""
    for back, front in permutations(members, 2):
        small = front.height < 0.72 * back.height and front.width < 0.8 * back.width
        if small and not front.far and front.count == back.count == 1:
            return front, back
    return None


def _in_front(
    rng: np.random.Generator, front: _Standing, back: _Standing, spots: list[_Spot]
) -> _Spot:
    behind = next((spot for spot in spots if spot.group == back.number), spots[0])
    side = -1 if rng.random() < 0.5 else 1
    x = behind.x + side * behind.width * rng.uniform(0.22, 0.42)
    x = float(np.clip(x, front.width / 2, 1 - front.width / 2))
    y = min(0.97, max(front.feet, behind.y + 0.08))
    return _Spot(front.number, x, y, front.width, front.height)


def _in_a_row(rng: np.random.Generator, members: list[_Standing]) -> list[_Spot]:
    """Set groups side by side in random order, leaving out the broadest if they do not fit."""
    order = [members[index] for index in rng.permutation(len(members))]
    while len(order) > 1 and sum(member.breadth for member in order) > 1.45:
        order.remove(max(order, key=lambda member: member.breadth))
    total = sum(member.breadth for member in order)
    shrink = min(1.0, 0.96 / total)
    gaps = rng.dirichlet(np.full(len(order) + 1, 1.6)) * (1 - shrink * total)
    spots, left = [], 0.0
    for member, gap in zip(order, gaps, strict=False):
        left += float(gap)
        spots += _in_rows(rng, member, left=left, shrink=shrink)
        left += member.breadth * shrink
    return spots


def _in_rows(
    rng: np.random.Generator, member: _Standing, *, left: float, shrink: float
) -> list[_Spot]:
    """Set the objects of a group in one row or in two."""
    width, height = member.width * shrink, member.height * shrink
    count, abreast = member.count, member.abreast
    rise = min(0.62 * height, 0.24)
    front = member.feet if abreast == count else min(0.97, member.feet + rise / 2)
    spots = []
    for step in range(count):
        behind = step >= abreast
        x = left + width * (0.55 + 0.92 * (step - abreast + 0.5 if behind else step))
        sway = rng.uniform(-0.02, 0.02) if count > 1 else 0.0
        y = min(0.97, front - rise * behind + sway)
        spots.append(_Spot(member.number, float(x), float(y), width, height))
    return spots


def _add_floating(
    rng: np.random.Generator,
    setting: Setting,
    groups: list[Group],
    counts: list[int],
    spots: list[_Spot],
) -> None:
    """Add the floating groups, each object where it meets the least of the others."""
    for number, (group, count) in enumerate(zip(groups, counts, strict=True)):
        if not group.floating:
            continue
        high = group.kind.name in ("sun", "moon", "cloud") and setting.standing
        band = (0.14, 0.2) if high else setting.air
        width, height = _size(group, count, near=0.5)
        if setting.horizon == 1.0 and count == 1:
            width, height = min(0.8, width * 1.3), min(0.8, height * 1.3)
        taken = [spot.extent(floating=False) for spot in spots]
        for _ in range(count):
            tries = [_anywhere(rng, number, band, width, height) for _ in range(14)]
            spot = min(tries, key=lambda spot: _crowding(spot.extent(floating=True), taken))
            spots.append(spot)
            taken.append(spot.extent(floating=True))


def _anywhere(
    rng: np.random.Generator, number: int, band: tuple[float, float], width: float, height: float
) -> _Spot:
    x = float(rng.uniform(width / 2, 1 - width / 2))
    return _Spot(number, x, float(max(rng.uniform(*band), height / 2 + 0.01)), width, height)


def _crowding(box: tuple[float, ...], taken: Sequence[tuple[float, ...]]) -> float:
    """Return the area in which a box meets others, each with a margin around it."""
    total = 0.0
    for x1, y1, x2, y2 in taken:
        width = min(box[2], x2 + 0.02) - max(box[0], x1 - 0.02)
        height = min(box[3], y2 + 0.02) - max(box[1], y1 - 0.02)
        total += max(width, 0.0) * max(height, 0.0)
    return total


def _planned_object(
    rng: np.random.Generator, light: str, group: Group, spot: _Spot
) -> PlannedObject:
    main = COLORS[group.color or "red"]
    varied = tuple(float(np.clip(c * rng.uniform(0.94, 1.06), 0, 255)) for c in main)
    second: RGB = COLORS["yellow" if group.color == "white" else "white"]
    reach = 1.0 if group.floating else (0.98 - spot.y) / 0.5
    tilt = rng.uniform(-1, 1) * group.kind.tilt if group.kind.tilt else 0.0
    look = Look(
        main=(varied[0], varied[1], varied[2]), second=second, pattern=group.pattern,
        mirrored=group.faces == "left", tilt=float(tilt), light=LIGHTS[light],
        depth=float(np.clip(0.5 * reach if group.floating else reach, 0, 1)),
        variant=int(rng.integers(1 << 16)),
    )  # fmt: skip
    return PlannedObject(spot.group, spot.x, spot.y, spot.height, look)
