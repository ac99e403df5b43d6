"""How places without a horizon are painted: under water, in space, indoors."""

import numpy as np

from virtex.data.sources.scenes.painting import (
    Pixels,
    add_stars,
    fill_below,
    gradient,
    ground_colours,
    in_light,
    noise,
    ridge,
    textured,
)
from virtex.data.sources.scenes.palette import RGB, Light
from virtex.data.sources.scenes.places import Place


def paint_underwater(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = np.repeat(gradient((96, 198, 222), (16, 74, 134), size), size, axis=1)
    rows, columns = np.indices((size, size), dtype=np.float32) / size
    rays = np.sin((columns + 0.5 * rows) * 14 + rng.uniform(0, 6)) * np.sin(
        (columns + 0.45 * rows) * 31
    )
    pixels += (np.clip(rays, 0, 1) * (1 - rows) * 34)[..., None]
    sand = ground_colours(light, size, far=(120, 166, 160), near=(196, 190, 150), start=0.82)
    line = ridge(rng, size, level=0.84, swing=0.04, waves=0.8)
    fill_below(pixels, line, textured(sand, noise(rng, size, across=6, down=size // 3), 0.05))
    for centre in rng.uniform(0, 1, 3):
        sway = centre + 0.015 * np.sin(rows[:, :1] * 30)
        reach = 0.62 + 0.2 * rng.random()
        weed = (
            np.clip((0.014 - np.abs(columns - sway)) * size, 0, 1) * (rows > reach) * (rows < 0.88)
        )
        pixels += (np.array((38, 120, 92), np.float32) - pixels) * (0.75 * weed[..., None])
    return pixels


def paint_space(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = np.repeat(gradient((10, 8, 30), (34, 18, 66), size), size, axis=1)
    nebula = np.clip(noise(rng, size, across=4, down=4), 0, 1)[..., None]
    pixels += nebula * np.asarray(((70, 24, 92), (20, 50, 100))[rng.integers(2)], np.float32)
    add_stars(pixels, rng, size, number=70)
    return pixels


def _wall(light: Light, size: int, rng: np.random.Generator, colours: tuple[RGB, ...]) -> Pixels:
    """A plain wall, brighter where the light falls on it."""
    colour = np.asarray(in_light(colours[rng.integers(len(colours))], light, 0.0), np.float32)
    rows, columns = np.indices((size, size), dtype=np.float32) / size
    glow = np.exp(-((rows - 0.2) ** 2 + (columns - rng.uniform(0.2, 0.8)) ** 2) * 3)
    return colour * (0.90 + 0.16 * glow[..., None])


def _boards(
    light: Light, size: int, rng: np.random.Generator, *, colour: RGB, start: float
) -> Pixels:
    """Planks with grain, seen at a slant."""
    far = (colour[0] * 0.86, colour[1] * 0.86, colour[2] * 0.86)
    wood = ground_colours(light, size, far=far, near=colour, start=start)
    grain = noise(rng, size, across=3, down=size // 2) + 0.7 * noise(
        rng, size, across=6, down=size // 3
    )
    wood = textured(wood, grain, 0.055)
    for share in (0.12, 0.34, 0.64):
        row = int(size * (start + (1 - start) * share))
        wood[row : row + max(1, size // 96)] *= 0.82
    return wood


def paint_table(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    wall = ((226, 218, 204), (188, 212, 206), (206, 214, 230), (238, 222, 180), (222, 196, 190))
    pixels = _wall(light, size, rng, wall)
    step, thick = max(8, size // 7), max(1, size // 96)
    pixels[step // 2 :: step] *= 0.955
    pixels[:, step // 2 :: step] *= 0.955
    woods = ((196, 142, 88), (158, 104, 66), (214, 172, 122), (226, 216, 202))
    boards = _boards(light, size, rng, colour=woods[rng.integers(4)], start=place.horizon)
    fill_below(pixels, np.full(size, size * place.horizon, np.float32), boards)
    edge = int(size * place.horizon)
    pixels[edge : edge + thick] *= 1.12
    return pixels


def paint_workbench(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    pixels = _wall(light, size, rng, ((176, 186, 190), (150, 164, 158), (196, 180, 160)))
    step, thick = max(6, size // 12), max(1, size // 64)
    for row in range(thick):
        for column in range(thick):
            pixels[step // 2 + row : int(size * 0.42) : step, step // 2 + column :: step] *= 0.72
    boards = _boards(light, size, rng, colour=(186, 140, 92), start=place.horizon)
    fill_below(pixels, np.full(size, size * place.horizon, np.float32), boards)
    return pixels


def paint_room(place: Place, light: Light, size: int, rng: np.random.Generator) -> Pixels:
    walls = ((234, 222, 200), (196, 214, 204), (200, 212, 230), (232, 204, 190), (220, 210, 230))
    pixels = _wall(light, size, rng, walls)
    if rng.random() < 0.5:
        stripes = (np.arange(size) // max(2, size // 24)) % 2 == 0
        pixels[:, stripes] *= 0.965
    if rng.random() < 0.6:
        _window(pixels, rng, light)
    floor = _boards(
        light,
        size,
        rng,
        colour=((178, 126, 80), (150, 108, 76), (200, 160, 116))[rng.integers(3)],
        start=place.horizon,
    )
    fill_below(pixels, np.full(size, size * place.horizon, np.float32), floor)
    edge = int(size * place.horizon)
    pixels[edge - max(2, size // 32) : edge] = in_light((250, 248, 242), light, 0.0)
    return pixels


def _window(pixels: Pixels, rng: np.random.Generator, light: Light) -> None:
    size = len(pixels)
    left, top = int(size * rng.uniform(0.06, 0.6)), int(size * 0.08)
    width, height, frame = int(size * 0.3), int(size * 0.34), max(1, size // 48)
    pixels[top : top + height, left : left + width] = in_light((250, 248, 244), light, 0.0)
    panes = (
        gradient((26, 30, 66), (60, 64, 110), height)
        if light.dark
        else gradient((132, 194, 238), (222, 240, 246), height)
    )
    middle = width // 2
    for start, stop in ((frame, middle - frame // 2), (middle + (frame + 1) // 2, width - frame)):
        pixels[top + frame : top + height - frame, left + start : left + stop] = panes[frame:-frame]
