"""Paint the backdrop of each setting: sky, ground, water, walls."""

from collections.abc import Callable

import numpy as np

from virtex.data.sources.scenes.canvas import Canvas, Pixels, textured
from virtex.data.sources.scenes.interiors import (
    paint_room,
    paint_space,
    paint_table,
    paint_underwater,
    paint_workbench,
)
from virtex.data.sources.scenes.palette import RGB, Light
from virtex.data.sources.scenes.settings import Setting

# fmt: off


def paint(setting: Setting, light: Light, *, size: int, rng: np.random.Generator) -> Pixels:
    """Return the backdrop, `size` pixels wide and high."""
    canvas = Canvas(size, light=light, horizon=setting.horizon, rng=rng)
    _PAINTERS[setting.name](canvas)
    return canvas.pixels


def _meadow(canvas: Canvas) -> None:
    size, horizon = canvas.size, canvas.horizon
    canvas.sky()
    canvas.hills((122, 172, 106))
    blades = canvas.noise(size // 2, size // 6) + canvas.noise(4, 6)
    canvas.ground(canvas.ridge(horizon + 0.02, swing=0.03, waves=0.8),
                  far=(150, 196, 98), near=(84, 148, 62), texture=blades, strength=0.06)
    canvas.specks(((252, 250, 240), (250, 220, 90), (232, 120, 150)), start=horizon + 0.08)


def _farm(canvas: Canvas) -> None:
    size, horizon = canvas.size, canvas.horizon
    canvas.sky()
    canvas.hills((140, 170, 98), swing=0.05)
    rows = np.arange(size, dtype=np.float32)[:, None] - size * (horizon - 0.04)
    columns = np.arange(size, dtype=np.float32)[None] - size * canvas.rng.uniform(0.2, 0.8)
    furrows = np.sin(columns / np.maximum(rows, 1) * 9)
    texture = furrows + 0.6 * canvas.noise(size // 2, size // 5)
    canvas.ground(canvas.level(horizon),
                  far=(226, 196, 108), near=(196, 152, 66), texture=texture, strength=0.07)


def _beach(canvas: Canvas) -> None:
    size, horizon = canvas.size, canvas.horizon
    canvas.sky()
    canvas.ground(canvas.level(horizon), far=(58, 132, 186), near=(120, 206, 214),
                  texture=canvas.noise(7, size // 3), strength=0.07)
    shore = canvas.ridge(horizon + 0.17, swing=0.04, waves=0.6)
    canvas.fill_below(shore, canvas.lit((246, 250, 250), 0.4))
    grain = canvas.noise(size, size) * 0.5 + canvas.noise(5, 9)
    canvas.ground(shore + size * 0.025, far=(222, 196, 142), near=(240, 214, 158),
                  start=horizon + 0.15, texture=grain, strength=0.045)


def _sea(canvas: Canvas) -> None:
    size = canvas.size
    canvas.sky()
    waves = canvas.noise(6, size // 3) + 0.5 * canvas.noise(14, size // 2)
    canvas.ground(canvas.level(canvas.horizon),
                  far=(96, 164, 206), near=(22, 84, 146), texture=waves, strength=0.10)


def _pond(canvas: Canvas) -> None:
    size = canvas.size
    canvas.sky()
    canvas.hills((112, 160, 100), swing=0.05)
    canvas.ground(canvas.level(canvas.horizon), far=(150, 190, 102), near=(84, 140, 66),
                  texture=canvas.noise(size // 2, size // 4), strength=0.07)
    canvas.ground(canvas.ridge(0.535, swing=0.025, waves=0.7),
                  far=(122, 176, 172), near=(48, 116, 128), start=0.5,
                  texture=canvas.noise(5, size // 4), strength=0.08)


def _street(canvas: Canvas) -> None:
    size, pixels = canvas.size, canvas.pixels
    canvas.sky()
    _paint_skyline(canvas, bottom=int(size * (canvas.horizon + 0.07)))
    canvas.ground(canvas.level(0.57), far=(190, 186, 180), near=(186, 182, 176), start=0.56)
    canvas.ground(canvas.level(0.675), far=(112, 114, 122), near=(84, 86, 94), start=0.66,
                  texture=canvas.noise(size, size), strength=0.03)
    curb, dash = int(size * 0.665), int(size * 0.84)
    pixels[curb : curb + max(1, size // 64)] = canvas.lit((222, 220, 214), 0.3)
    thick, offset = max(1, size // 48), canvas.rng.integers(0, size // 3)
    for left in range(-offset, size, size // 3):
        columns = slice(max(0, left), max(0, left + size // 6))
        pixels[dash : dash + thick, columns] = canvas.lit((240, 232, 196), 0.1)


def _paint_skyline(canvas: Canvas, *, bottom: int) -> None:
    """Paint distant blocks in the color of the air, standing on a row of the image."""
    size, rng, pixels = canvas.size, canvas.rng, canvas.pixels
    pane = (255, 214, 120) if canvas.light.dark else canvas.lit((204, 218, 232), 0.7)
    step, thick = max(3, size // 24), max(1, size // 64)
    left = 0
    while left < size:
        width = int(size * rng.uniform(0.09, 0.2))
        top = bottom - int(size * rng.uniform(0.1, 0.3))
        tone = float(rng.uniform(0.86, 1.06))
        block = canvas.lit((150 * tone, 160 * tone, 182 * tone), 0.8)
        pixels[top:bottom, left : left + width] = block
        for row in range(top + step // 2, bottom - thick, step):
            for column in range(left + step // 2, min(size, left + width) - thick, step):
                if rng.random() < 0.55:
                    pixels[row : row + thick, column : column + thick] = pane
        left += width + int(size * rng.uniform(0, 0.03))


def _snow(canvas: Canvas) -> None:
    canvas.sky()
    canvas.hills((206, 222, 240), swing=0.09)
    drifts = canvas.noise(3, 7)
    canvas.ground(canvas.ridge(canvas.horizon + 0.02, swing=0.04, waves=0.7),
                  far=(226, 236, 248), near=(246, 249, 253), texture=drifts, strength=0.035)
    if canvas.rng.random() < 0.5:
        canvas.specks(((255, 255, 255),), start=0.0, number=40)


def _desert(canvas: Canvas) -> None:
    size, horizon = canvas.size, canvas.horizon
    canvas.sky()
    for rise, color in ((-0.04, (232, 184, 120)), (0.01, (224, 168, 100))):
        canvas.ground(canvas.ridge(horizon + rise, swing=0.10, waves=0.6),
                      far=color, near=(240, 200, 136), start=horizon - 0.1)
    ripples = canvas.noise(4, size // 5) + 0.4 * canvas.noise(size, size)
    canvas.ground(canvas.ridge(horizon + 0.06, swing=0.05, waves=0.8),
                  far=(236, 190, 122), near=(214, 160, 96), texture=ripples, strength=0.04)


def _mountains(canvas: Canvas) -> None:
    size, horizon = canvas.size, canvas.horizon
    canvas.sky()
    _paint_peaks(canvas, (136, 150, 184), depth=1.0)
    _paint_peaks(canvas, (108, 126, 156), depth=0.6)
    canvas.ground(canvas.ridge(horizon, swing=0.03, waves=0.8),
                  far=(126, 166, 104), near=(80, 134, 72),
                  texture=canvas.noise(size // 2, size // 6), strength=0.07)


def _paint_peaks(canvas: Canvas, color: RGB, *, depth: float) -> None:
    """Paint three peaks of rock, the high ones with caps of snow."""
    size, rng = canvas.size, canvas.rng
    x = np.arange(size, dtype=np.float32) / size
    peaks = rng.uniform(0.1, 0.9, 3) + np.array((-0.3, 0, 0.3))
    heights = rng.uniform(0.14, 0.36, 3) * (0.7 + 0.4 * depth)
    profile = (heights[:, None] - np.abs(x - peaks[:, None]) * 0.85).max(axis=0).clip(0.02)
    line = size * (canvas.horizon - profile + 0.01 * canvas.noise(18, 2)[0])
    line = line.astype(np.float32)
    rock = np.broadcast_to(canvas.lit(color, depth), canvas.pixels.shape)
    rock = textured(rock, canvas.noise(12, 5), 0.06)
    cap = np.clip((line + size * 0.07 - np.arange(size)[:, None]) / 2, 0, 1)[..., None]
    cap *= (profile > 0.16)[None, :, None]
    snow = canvas.lit((246, 249, 253), depth * 0.7)
    canvas.fill_below(line, (rock + (snow - rock) * cap).astype(np.float32))


def _savanna(canvas: Canvas) -> None:
    size = canvas.size
    canvas.sky()
    canvas.hills((178, 166, 122), swing=0.04)
    blades = canvas.noise(size // 2, size // 7) + canvas.noise(4, 5)
    canvas.ground(canvas.level(canvas.horizon),
                  far=(224, 198, 116), near=(184, 156, 74), texture=blades, strength=0.07)


def _forest(canvas: Canvas) -> None:
    """Paint trunks behind each other, fading into green air."""
    size, horizon = canvas.size, canvas.horizon
    canvas.blend(canvas.lit((58, 104, 70), 0.6), canvas.lit((150, 190, 130), 0.8))
    canvas.pixels = textured(canvas.pixels, canvas.noise(7, 7), 0.10)
    columns = np.arange(size, dtype=np.float32)
    for depth, number in ((0.9, 8), (0.6, 6), (0.3, 3)):
        color = canvas.lit((72, 58, 44), depth)
        air = np.array((112, 150, 104), np.float32) * canvas.light.tint
        color += (air - color) * depth * 0.6
        part = canvas.pixels[: int(size * (horizon + 0.1 - 0.1 * depth))]
        for center in canvas.rng.uniform(0, size, number):
            half = size * (0.05 - 0.036 * depth)
            cover = np.clip(half - np.abs(columns - center), 0, 1)[None, :, None]
            part += (color - part) * cover
    leaves = canvas.noise(size // 3, size // 4)
    canvas.ground(canvas.ridge(horizon + 0.03, swing=0.03, waves=0.9),
                  far=(112, 142, 84), near=(82, 102, 56), texture=leaves, strength=0.12)


_PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "meadow": _meadow, "farm": _farm, "beach": _beach, "sea": _sea, "pond": _pond,
    "street": _street, "snow": _snow, "desert": _desert, "mountains": _mountains,
    "savanna": _savanna, "forest": _forest, "sky": Canvas.sky, "underwater": paint_underwater,
    "space": paint_space, "table": paint_table, "workbench": paint_workbench, "room": paint_room,
}
