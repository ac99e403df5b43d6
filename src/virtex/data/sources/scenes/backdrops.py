"""How the surroundings are painted: sky, ground, water, walls."""

from collections.abc import Callable

import numpy as np

from virtex.data.sources.scenes.interiors import (
    paint_room,
    paint_space,
    paint_table,
    paint_underwater,
    paint_workbench,
)
from virtex.data.sources.scenes.painting import (
    Pixels,
    add_hills,
    add_specks,
    fill_below,
    gradient,
    ground_colours,
    in_light,
    noise,
    paint_sky,
    ridge,
    textured,
)
from virtex.data.sources.scenes.palette import Light
from virtex.data.sources.scenes.places import Place


def paint(place: Place, light: Light, *, size: int, rng: np.random.Generator) -> Pixels:
    """The empty place, `size` pixels wide and high."""
    return _PAINTERS[place.name](place, light, size, rng)


def _meadow(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    add_hills(place, light, size, rng, pixels, colour=(122, 172, 106))
    grass = ground_colours(light, size, far=(150, 196, 98), near=(84, 148, 62), start=place.horizon)
    blades = noise(rng, size, across=size // 2, down=size // 6)
    grass = textured(grass, blades + noise(rng, size, across=4, down=6), 0.06)
    line = ridge(rng, size, level=place.horizon + 0.02, swing=0.03, waves=0.8)
    fill_below(pixels, line, grass)
    add_specks(
        pixels,
        rng,
        light,
        start=place.horizon + 0.08,
        colours=((252, 250, 240), (250, 220, 90), (232, 120, 150)),
    )
    return pixels


def _farm(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    add_hills(place, light, size, rng, pixels, colour=(140, 170, 98), swing=0.05)
    field = ground_colours(
        light, size, far=(226, 196, 108), near=(196, 152, 66), start=place.horizon
    )
    rows = np.arange(size, dtype=np.float32)[:, None] - size * (place.horizon - 0.04)
    columns = np.arange(size, dtype=np.float32)[None] - size * rng.uniform(0.2, 0.8)
    furrows = np.sin(columns / np.maximum(rows, 1) * 9)
    field = textured(
        field, furrows + 0.6 * noise(rng, size, across=size // 2, down=size // 5), 0.07
    )
    fill_below(pixels, np.full(size, size * place.horizon, np.float32), field)
    return pixels


def _beach(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    sea = ground_colours(light, size, far=(58, 132, 186), near=(120, 206, 214), start=place.horizon)
    fill_below(
        pixels,
        np.full(size, size * place.horizon, np.float32),
        textured(sea, noise(rng, size, across=7, down=size // 3), 0.07),
    )
    shore = ridge(rng, size, level=place.horizon + 0.17, swing=0.04, waves=0.6)
    foam = np.broadcast_to(
        np.asarray(in_light((246, 250, 250), light, 0.4), np.float32), pixels.shape
    )
    fill_below(pixels, shore, foam)
    sand = ground_colours(
        light, size, far=(222, 196, 142), near=(240, 214, 158), start=place.horizon + 0.15
    )
    grain = noise(rng, size, across=size, down=size) * 0.5 + noise(rng, size, across=5, down=9)
    fill_below(pixels, shore + size * 0.025, textured(sand, grain, 0.045))
    return pixels


def _sea(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    water = ground_colours(light, size, far=(96, 164, 206), near=(22, 84, 146), start=place.horizon)
    waves = noise(rng, size, across=6, down=size // 3) + 0.5 * noise(
        rng, size, across=14, down=size // 2
    )
    fill_below(
        pixels, np.full(size, size * place.horizon, np.float32), textured(water, waves, 0.10)
    )
    return pixels


def _pond(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    add_hills(place, light, size, rng, pixels, colour=(112, 160, 100), swing=0.05)
    bank = ground_colours(light, size, far=(150, 190, 102), near=(84, 140, 66), start=place.horizon)
    fill_below(
        pixels,
        np.full(size, size * place.horizon, np.float32),
        textured(bank, noise(rng, size, across=size // 2, down=size // 4), 0.07),
    )
    shore = ridge(rng, size, level=0.535, swing=0.025, waves=0.7)
    water = ground_colours(light, size, far=(122, 176, 172), near=(48, 116, 128), start=0.5)
    fill_below(pixels, shore, textured(water, noise(rng, size, across=5, down=size // 4), 0.08))
    return pixels


def _street(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    _skyline(pixels, rng, light, horizon=place.horizon + 0.07)
    walk = ground_colours(light, size, far=(190, 186, 180), near=(186, 182, 176), start=0.56)
    fill_below(pixels, np.full(size, size * 0.57, np.float32), walk)
    road = ground_colours(light, size, far=(112, 114, 122), near=(84, 86, 94), start=0.66)
    fill_below(
        pixels,
        np.full(size, size * 0.675, np.float32),
        textured(road, noise(rng, size, across=size, down=size), 0.03),
    )
    curb = slice(int(size * 0.665), int(size * 0.665) + max(1, size // 64))
    pixels[curb] = in_light((222, 220, 214), light, 0.3)
    thick, offset = max(1, size // 48), rng.integers(0, size // 3)
    for left in range(-offset, size, size // 3):
        part = pixels[
            int(size * 0.84) : int(size * 0.84) + thick, max(0, left) : max(0, left + size // 6)
        ]
        part[:] = in_light((240, 232, 196), light, 0.1)
    return pixels


def _skyline(pixels: Pixels, rng: np.random.Generator, light: Light, *, horizon: float) -> None:
    """Distant blocks in the colour of the air."""
    size, left = len(pixels), 0
    bottom = int(size * horizon)
    while left < size:
        width = int(size * rng.uniform(0.09, 0.2))
        top = bottom - int(size * rng.uniform(0.1, 0.3))
        tone = float(rng.uniform(0.86, 1.06))
        block = in_light((150 * tone, 160 * tone, 182 * tone), light, 0.8)
        pixels[top:bottom, left : left + width] = block
        pane = (255, 214, 120) if light.dark else in_light((204, 218, 232), light, 0.7)
        step, thick = max(3, size // 24), max(1, size // 64)
        for row in range(top + step // 2, bottom - thick, step):
            for column in range(left + step // 2, min(size, left + width) - thick, step):
                if rng.random() < 0.55:
                    pixels[row : row + thick, column : column + thick] = pane
        left += width + int(size * rng.uniform(0, 0.03))


def _snow(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    add_hills(place, light, size, rng, pixels, colour=(206, 222, 240), swing=0.09)
    ground = ground_colours(
        light, size, far=(226, 236, 248), near=(246, 249, 253), start=place.horizon
    )
    drifts = noise(rng, size, across=3, down=7)
    line = ridge(rng, size, level=place.horizon + 0.02, swing=0.04, waves=0.7)
    fill_below(pixels, line, textured(ground, drifts, 0.035))
    if rng.random() < 0.5:
        add_specks(pixels, rng, light, start=0.0, colours=((255, 255, 255),), number=40)
    return pixels


def _desert(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    for step, colour in enumerate(((232, 184, 120), (224, 168, 100))):
        line = ridge(rng, size, level=place.horizon - 0.04 + 0.05 * step, swing=0.10, waves=0.6)
        dune = ground_colours(
            light, size, far=colour, near=(240, 200, 136), start=place.horizon - 0.1
        )
        fill_below(pixels, line, dune)
    sand = ground_colours(
        light, size, far=(236, 190, 122), near=(214, 160, 96), start=place.horizon
    )
    ripples = noise(rng, size, across=4, down=size // 5) + 0.4 * noise(
        rng, size, across=size, down=size
    )
    line = ridge(rng, size, level=place.horizon + 0.06, swing=0.05, waves=0.8)
    fill_below(pixels, line, textured(sand, ripples, 0.04))
    return pixels


def _mountains(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    x = np.arange(size, dtype=np.float32) / size
    for depth, colour in ((1.0, (136, 150, 184)), (0.6, (108, 126, 156))):
        peaks = rng.uniform(0.1, 0.9, 3) + np.array((-0.3, 0, 0.3))
        heights = rng.uniform(0.14, 0.36, 3) * (0.7 + 0.4 * depth)
        profile = (heights[:, None] - np.abs(x - peaks[:, None]) * 0.85).max(axis=0).clip(0.02)
        line = (
            size * (place.horizon - profile + 0.01 * noise(rng, size, across=18, down=2)[0])
        ).astype(np.float32)
        rock = textured(
            np.broadcast_to(np.asarray(in_light(colour, light, depth), np.float32), pixels.shape),
            noise(rng, size, across=12, down=5),
            0.06,
        )
        cap = np.clip((line + size * 0.07 - np.arange(size)[:, None]) / 2, 0, 1)[..., None]
        cap *= (profile > 0.16)[None, :, None]
        snow = np.asarray(in_light((246, 249, 253), light, depth * 0.7), np.float32)
        fill_below(pixels, line, (rock + (snow - rock) * cap).astype(np.float32))
    grass = ground_colours(
        light, size, far=(126, 166, 104), near=(80, 134, 72), start=place.horizon
    )
    fill_below(
        pixels,
        ridge(rng, size, level=place.horizon, swing=0.03, waves=0.8),
        textured(grass, noise(rng, size, across=size // 2, down=size // 6), 0.07),
    )
    return pixels


def _savanna(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = paint_sky(light, size, rng, horizon=place.horizon)
    add_hills(place, light, size, rng, pixels, colour=(178, 166, 122), swing=0.04)
    grass = ground_colours(
        light, size, far=(224, 198, 116), near=(184, 156, 74), start=place.horizon
    )
    blades = noise(rng, size, across=size // 2, down=size // 7) + noise(rng, size, across=4, down=5)
    fill_below(
        pixels, np.full(size, size * place.horizon, np.float32), textured(grass, blades, 0.07)
    )
    return pixels


def _forest(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    """Trunks behind each other, fading into green air."""
    pixels = np.repeat(
        gradient(in_light((58, 104, 70), light, 0.6), in_light((150, 190, 130), light, 0.8), size),
        size,
        axis=1,
    )
    pixels = textured(pixels, noise(rng, size, across=7, down=7), 0.10)
    columns = np.arange(size, dtype=np.float32)
    for depth, number in ((0.9, 8), (0.6, 6), (0.3, 3)):
        colour = np.asarray(in_light((72, 58, 44), light, depth), np.float32)
        colour += (np.array((112, 150, 104), np.float32) * light.tint - colour) * depth * 0.6
        bottom = int(size * (place.horizon + 0.1 - 0.1 * depth))
        for centre in rng.uniform(0, size, number):
            half = size * (0.05 - 0.036 * depth)
            cover = np.clip(half - np.abs(columns - centre), 0, 1)[None, :, None]
            part = pixels[:bottom]
            part += (colour - part) * cover
    floor = ground_colours(light, size, far=(112, 142, 84), near=(82, 102, 56), start=place.horizon)
    leaves = noise(rng, size, across=size // 3, down=size // 4)
    fill_below(
        pixels,
        ridge(rng, size, level=place.horizon + 0.03, swing=0.03, waves=0.9),
        textured(floor, leaves, 0.12),
    )
    return pixels


def _open_sky(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    return paint_sky(light, size, rng, horizon=place.horizon)


_PAINTERS: dict[str, Callable[[Place, Light, int, np.random.Generator], Pixels]] = {
    "meadow": _meadow, "farm": _farm, "beach": _beach, "sea": _sea, "pond": _pond,
    "street": _street, "snow": _snow, "desert": _desert, "mountains": _mountains,
    "savanna": _savanna, "forest": _forest, "sky": _open_sky, "underwater": paint_underwater,
    "space": paint_space, "table": paint_table, "workbench": paint_workbench, "room": paint_room,
}  # fmt: skip
