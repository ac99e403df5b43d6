"""Draw a planned scene, and find the visible part of each object in it."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from virtex.data.sources.scenes.backdrops import paint
from virtex.data.sources.scenes.canvas import Pixels
from virtex.data.sources.scenes.drawing import Sprite, render
from virtex.data.sources.scenes.kind_drawings import draw_kind
from virtex.data.sources.scenes.palette import LIGHTS
from virtex.data.sources.scenes.scene_plan import Group, PlannedObject, ScenePlan

_LEAST_VISIBLE = 0.55
"""Least share of an object that must be visible; one with less is left out."""
_LEAST_AREA = 0.004
"""Least share of the image that an object must cover; one with less is left out."""


@dataclass(frozen=True)
class VisibleObject:
    """Visible part of one object."""

    group: int
    mask: NDArray[np.bool_]
    """Visible pixels (S, S)."""
    box: tuple[int, int, int, int]
    """Corners x1, y1, x2, y2 around the mask."""
    visible: float
    """Share of the object that is visible."""
    depth: int
    """Index in the order of drawing; higher is nearer."""


@dataclass(frozen=True)
class DrawnScene:
    """Drawn scene with its plan and its visible objects."""

    plan: ScenePlan
    pixels: NDArray[np.uint8]
    """(S, S, 3)."""
    objects: tuple[VisibleObject, ...]


@dataclass(frozen=True)
class _PlacedSprite:
    """Sprite at its position in the image, cropped to the image."""

    group: int
    left: int
    top: int
    sprite: Sprite
    standing: bool

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that it covers."""
        height, width = self.sprite.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


_Visible = tuple[list[_PlacedSprite], tuple[VisibleObject, ...]]


def compose(plan: ScenePlan, *, size: int, rng: np.random.Generator) -> DrawnScene:
    """Draw a scene `size` pixels wide and high."""
    pixels = paint(plan.setting, LIGHTS[plan.light], size=size, rng=rng)
    sprites, objects = _leave_out_hidden(_place_sprites(plan, size), size)
    mirrored = plan.setting.water
    for placed in sprites:
        if placed.standing and mirrored:
            _mirror(pixels, placed)
        elif placed.standing:
            _cast_shadow(pixels, placed, strength=0.22 if LIGHTS[plan.light].dark else 0.36)
        part = pixels[placed.window]
        part += (placed.sprite.color - part) * placed.sprite.alpha[..., None]
    if plan.light == "rain":
        _rain(pixels, rng)
    return DrawnScene(plan, pixels.clip(0, 255).astype(np.uint8), objects)


def visible_objects(plan: ScenePlan, *, size: int) -> tuple[VisibleObject, ...]:
    """Return the objects of the scene that `compose` draws, without painting its backdrop."""
    return _leave_out_hidden(_place_sprites(plan, size), size)[1]


def _place_sprites(plan: ScenePlan, size: int) -> list[_PlacedSprite]:
    return [_place_sprite(plan.groups[p.group], p, size) for p in plan.objects]


def _place_sprite(group: Group, planned: PlannedObject, size: int) -> _PlacedSprite:
    kind = group.kind
    draw = partial(draw_kind, name=kind.name)
    sprite = render(draw, kind.canvas, height=planned.height * size, look=planned.look)
    height, width = sprite.alpha.shape
    left = round(planned.x * size - width / 2)
    left = max(0, min(left, size - width)) if width < size else (size - width) // 2
    bottom = planned.y * size + (height / 2 if group.floating else 0)
    top = max(0, min(round(bottom) - height, size - height))
    first = max(0, -left)
    crop = Sprite(
        sprite.color[: size - top, first : first + size],
        sprite.alpha[: size - top, first : first + size],
    )
    return _PlacedSprite(planned.group, max(left, 0), top, crop, not group.floating)


def _leave_out_hidden(sprites: list[_PlacedSprite], size: int) -> _Visible:
    """Return the sprites and their visible parts, without those that are hidden too much."""
    while True:
        covered = np.zeros((size, size), np.bool_)
        objects: list[VisibleObject] = []
        for depth in range(len(sprites) - 1, -1, -1):
            mask = np.zeros((size, size), np.bool_)
            mask[sprites[depth].window] = sprites[depth].sprite.alpha > 0.5
            whole = max(1, int(np.count_nonzero(mask)))
            mask &= ~covered
            covered |= mask
            objects.append(_visible_object(sprites[depth].group, mask, whole, depth))
        hidden = [
            t for t in objects if t.visible < _LEAST_VISIBLE or t.mask.sum() < _LEAST_AREA * size**2
        ]
        if not hidden:
            return sprites, tuple(reversed(objects))
        worst = min(hidden, key=lambda drawn: drawn.visible).depth
        sprites = sprites[:worst] + sprites[worst + 1 :]


def _visible_object(group: int, mask: NDArray[np.bool_], whole: int, depth: int) -> VisibleObject:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (0, 0, 0, 0)
    if len(rows):
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return VisibleObject(group, mask, box, np.count_nonzero(mask) / whole, depth)


def _cast_shadow(pixels: Pixels, placed: _PlacedSprite, *, strength: float) -> None:
    """Darken a soft ellipse at the feet."""
    size = len(pixels)
    height, width = placed.sprite.alpha.shape
    x, y = placed.left + width / 2, placed.top + height - max(1.0, 0.01 * size)
    rx, ry = width * 0.52, max(1.6 * size / 96, min(width, height) * 0.09)
    top, bottom = max(0, int(y - 2 * ry)), min(size, int(y + 2 * ry) + 1)
    rows = np.arange(top, bottom, dtype=np.float32)
    left, right = max(0, int(x - 1.5 * rx)), min(size, int(x + 1.5 * rx) + 1)
    columns = np.arange(left, right, dtype=np.float32)
    down, across = np.exp(-(((rows - y) / ry) ** 2)), np.exp(-(((columns - x) / rx) ** 4))
    pixels[top:bottom, left:right] *= 1 - (strength * down[:, None] * across)[..., None]


def _mirror(pixels: Pixels, placed: _PlacedSprite) -> None:
    """Add the upside-down image in the water below, fading out."""
    height, width = placed.sprite.alpha.shape
    start = placed.top + height
    depth = min(height // 2, len(pixels) - start)
    if depth <= 0:
        return
    fade = np.linspace(0.42, 0.0, depth, dtype=np.float32)[:, None]
    alpha = placed.sprite.alpha[::-1][:depth] * fade
    part = pixels[start : start + depth, placed.left : placed.left + width]
    part += (placed.sprite.color[::-1][:depth] * 0.9 - part) * alpha[..., None]
    foam = max(1, len(pixels) // 96)
    line = pixels[start : start + foam, placed.left : placed.left + width]
    line += (255 - line) * (0.4 * placed.sprite.alpha[-1:, :, None])


def _rain(pixels: Pixels, rng: np.random.Generator) -> None:
    size = len(pixels)
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for x, y, length in rng.uniform((-0.1, -0.1, 0.04), (1.1, 1.0, 0.09), (42, 3)) * size:
        draw.line((x, y, x - 0.35 * length, y + length), fill=92, width=max(1, size // 110))
    streaks = np.asarray(image, np.float32)[..., None] / 255
    pixels += (226 - pixels) * streaks
