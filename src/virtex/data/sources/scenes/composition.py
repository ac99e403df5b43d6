"""A layout made into a picture, with what can be seen of each object in it."""

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
from virtex.data.sources.scenes.scene_plan import Group, Layout, Placement

_LEAST_VISIBLE = 0.55
"""An object of which less can be seen is left out."""
_LEAST_AREA = 0.004
"""So is one that covers less of the picture."""


@dataclass(frozen=True)
class Thing:
    """One object as it is seen."""

    group: int
    mask: NDArray[np.bool_]
    """(S, S): its visible pixels."""
    box: tuple[int, int, int, int]
    """x1, y1, x2, y2 around them."""
    visible: float
    """The share of it that can be seen."""
    depth: int
    """Its place in the order of drawing; higher is nearer."""


@dataclass(frozen=True)
class Picture:
    """A drawn scene."""

    layout: Layout
    pixels: NDArray[np.uint8]
    """(S, S, 3)."""
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class _Put:
    """A sprite at its place in the picture, cropped to the picture."""

    group: int
    left: int
    top: int
    sprite: Sprite
    standing: bool


def compose(layout: Layout, *, size: int, rng: np.random.Generator) -> Picture:
    """Draw a scene `size` pixels wide and high."""
    pixels = paint(layout.place, LIGHTS[layout.light], size=size, rng=rng)
    puts, things = _visible_things(_put_all(layout, size), size)
    mirrored = layout.place.water
    for put in puts:
        if put.standing and mirrored:
            _mirror(pixels, put)
        elif put.standing:
            _cast_shadow(pixels, put, strength=0.22 if LIGHTS[layout.light].dark else 0.36)
        rows, columns = _window(put)
        part = pixels[rows, columns]
        part += (put.sprite.colour - part) * put.sprite.alpha[..., None]
    if layout.light == "rain":
        _rain(pixels, rng)
    return Picture(layout, pixels.clip(0, 255).astype(np.uint8), things)


def visible_things(layout: Layout, *, size: int) -> tuple[Thing, ...]:
    """The things of the picture that `compose` draws, without drawing the rest of it."""
    return _visible_things(_put_all(layout, size), size)[1]


def _put_all(layout: Layout, size: int) -> list[_Put]:
    return [_put(layout.groups[p.group], p, size) for p in layout.placements]


def _put(group: Group, placement: Placement, size: int) -> _Put:
    kind = group.kind
    draw = partial(draw_kind, name=kind.name)
    sprite = render(draw, kind.canvas, height=placement.height * size, look=placement.look)
    height, width = sprite.alpha.shape
    left = round(placement.x * size - width / 2)
    left = max(0, min(left, size - width)) if width < size else (size - width) // 2
    bottom = placement.y * size + (height / 2 if group.floating else 0)
    top = max(0, min(round(bottom) - height, size - height))
    first = max(0, -left)
    crop = Sprite(
        sprite.colour[: size - top, first : first + size],
        sprite.alpha[: size - top, first : first + size],
    )
    return _Put(placement.group, max(left, 0), top, crop, not group.floating)


def _window(put: _Put) -> tuple[slice, slice]:
    height, width = put.sprite.alpha.shape
    return slice(put.top, put.top + height), slice(put.left, put.left + width)


def _visible_things(puts: list[_Put], size: int) -> tuple[list[_Put], tuple[Thing, ...]]:
    """What is seen of each, after leaving out whatever is hidden too much."""
    while True:
        covered = np.zeros((size, size), np.bool_)
        things: list[Thing] = []
        for depth in range(len(puts) - 1, -1, -1):
            mask = np.zeros((size, size), np.bool_)
            mask[_window(puts[depth])] = puts[depth].sprite.alpha > 0.5
            whole = max(1, int(np.count_nonzero(mask)))
            mask &= ~covered
            covered |= mask
            things.append(_thing(puts[depth].group, mask, whole, depth))
        hidden = [
            t for t in things if t.visible < _LEAST_VISIBLE or t.mask.sum() < _LEAST_AREA * size**2
        ]
        if not hidden:
            return puts, tuple(reversed(things))
        worst = min(hidden, key=lambda thing: thing.visible).depth
        puts = puts[:worst] + puts[worst + 1 :]


def _thing(group: int, mask: NDArray[np.bool_], whole: int, depth: int) -> Thing:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (0, 0, 0, 0)
    if len(rows):
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Thing(group, mask, box, np.count_nonzero(mask) / whole, depth)


def _cast_shadow(pixels: Pixels, put: _Put, *, strength: float) -> None:
    """A soft dark ellipse at the feet."""
    size = len(pixels)
    height, width = put.sprite.alpha.shape
    x, y = put.left + width / 2, put.top + height - max(1.0, 0.01 * size)
    rx, ry = width * 0.52, max(1.6 * size / 96, min(width, height) * 0.09)
    rows = np.arange(max(0, int(y - 2 * ry)), min(size, int(y + 2 * ry) + 1), dtype=np.float32)
    columns = np.arange(
        max(0, int(x - 1.5 * rx)), min(size, int(x + 1.5 * rx) + 1), dtype=np.float32
    )
    down, across = np.exp(-(((rows - y) / ry) ** 2)), np.exp(-(((columns - x) / rx) ** 4))
    shadow = strength * down[:, None] * across
    if shadow.size:
        region = (
            slice(int(rows[0]), int(rows[-1]) + 1),
            slice(int(columns[0]), int(columns[-1]) + 1),
        )
        pixels[region] *= 1 - shadow[..., None]


def _mirror(pixels: Pixels, put: _Put) -> None:
    """Its upside-down image in the water below it, fading out."""
    height, width = put.sprite.alpha.shape
    start = put.top + height
    depth = min(height // 2, len(pixels) - start)
    if depth <= 0:
        return
    fade = np.linspace(0.42, 0.0, depth, dtype=np.float32)[:, None]
    alpha = put.sprite.alpha[::-1][:depth] * fade
    part = pixels[start : start + depth, put.left : put.left + width]
    part += (put.sprite.colour[::-1][:depth] * 0.9 - part) * alpha[..., None]
    foam = max(1, len(pixels) // 96)
    line = pixels[start : start + foam, put.left : put.left + width]
    line += (255 - line) * (0.4 * put.sprite.alpha[-1:, :, None])


def _rain(pixels: Pixels, rng: np.random.Generator) -> None:
    size = len(pixels)
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for x, y, length in rng.uniform((-0.1, -0.1, 0.04), (1.1, 1.0, 0.09), (42, 3)) * size:
        draw.line((x, y, x - 0.35 * length, y + length), fill=92, width=max(1, size // 110))
    streaks = np.asarray(image, np.float32)[..., None] / 255
    pixels += (226 - pixels) * streaks
