"""The strokes that backdrops are painted with: gradients, noise, rolling lines, mist."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from virtex.data.sources.scenes.palette import RGB, Light
from virtex.data.sources.scenes.places import Place

Pixels = NDArray[np.float32]
"""(S, S, 3), 0 to 255."""

_SKIES: dict[str, tuple[tuple[RGB, RGB], ...]] = {
    "day": (
        ((84, 158, 228), (200, 230, 248)), ((70, 146, 214), (214, 234, 240)),
        ((112, 180, 232), (226, 240, 246)),
    ),
    "dusk": (
        ((92, 84, 156), (252, 176, 116)), ((120, 92, 150), (250, 154, 122)),
        ((72, 92, 158), (255, 200, 136)),
    ),
    "night": (((12, 16, 46), (42, 54, 104)), ((16, 14, 50), (54, 50, 104))),
    "fog": (((198, 206, 214), (224, 228, 232)),),
    "rain": (((104, 116, 134), (166, 178, 190)), ((90, 104, 122), (150, 164, 178))),
}  # fmt: skip


def gradient(top: RGB, bottom: RGB, height: int) -> Pixels:
    """Colours (height, 1, 3) from `top` to `bottom`."""
    share = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None, None]
    return np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share


def noise(rng: np.random.Generator, size: int, *, across: int, down: int) -> NDArray[np.float32]:
    """Smooth values (size, size), about -1 to 1, with so many bumps across and down."""
    cells = rng.integers(0, 256, (max(2, down), max(2, across)), dtype=np.uint8)
    image = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 127.5 - 1


def ridge(
    rng: np.random.Generator, size: int, *, level: float, swing: float, waves: float
) -> NDArray[np.float32]:
    """A rolling line: a height in pixels for each column."""
    x = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    phases = rng.uniform(0, 2 * np.pi, 3)
    line = sum(np.sin(x * waves * (k + 1) + phases[k]) / (k + 1.3) for k in range(3))
    return size * (level + swing * 0.5 * np.asarray(line, np.float32))


def fill_below(pixels: Pixels, line: NDArray[np.float32], colours: Pixels) -> None:
    """Paint `colours` under a line, with a soft edge."""
    first = max(0, int(line.min()) - 1)
    rows = np.arange(first, len(pixels), dtype=np.float32)[:, None]
    cover = np.clip(rows - line + 0.5, 0, 1)[..., None]
    part = pixels[first:]
    part += (colours[first:] - part) * cover


def in_light(colour: RGB, light: Light, depth: float) -> RGB:
    """A colour in this light, seen through the mist before it."""
    share = light.mist_near + (light.mist_far - light.mist_near) * depth
    red, green, blue = (
        channel * tint + (mist - channel * tint) * share
        for channel, tint, mist in zip(colour, light.tint, light.mist, strict=True)
    )
    return (red, green, blue)


def ground_colours(light: Light, size: int, *, far: RGB, near: RGB, start: float) -> Pixels:
    """A full picture's worth of ground colours, from mist at `start` to the foreground."""
    top = int(size * start)
    column = np.empty((size, 1, 3), np.float32)
    column[:top] = in_light(far, light, 1.0)
    column[top:] = gradient(in_light(far, light, 1.0), in_light(near, light, 0.0), size - top)
    return np.repeat(column, size, axis=1)


def paint_sky(light: Light, size: int, rng: np.random.Generator, *, horizon: float) -> Pixels:
    """A full picture of sky, palest at the horizon, with stars or wisps of cloud."""
    skies = _SKIES[light.name]
    top, bottom = skies[rng.integers(len(skies))]
    height = max(2, min(size, int(size * (horizon + 0.08))))
    pixels = np.empty((size, size, 3), np.float32)
    pixels[:height] = gradient(top, bottom, height)
    pixels[height:] = bottom
    if light.name == "night":
        add_stars(pixels, rng, height, number=26)
    elif light.name != "fog":
        wisps = np.clip(noise(rng, size, across=3, down=9) - 0.25, 0, 1)[:height, :, None]
        pixels[:height] += (np.asarray(bottom, np.float32) + 12 - pixels[:height]) * wisps * 0.5
    return pixels


def add_stars(pixels: Pixels, rng: np.random.Generator, height: int, *, number: int) -> None:
    """Points of light in the top `height` rows."""
    size = len(pixels)
    rows, columns = rng.integers(0, max(1, height - 2), number), rng.integers(0, size - 1, number)
    glow = rng.uniform(60, 190, (number, 1)).astype(np.float32)
    thick = max(1, size // 128)
    for row in range(thick):
        for column in range(thick):
            spots = (np.minimum(rows + row, size - 1), np.minimum(columns + column, size - 1))
            pixels[spots] = np.minimum(pixels[spots] + glow, 255)


def textured(colours: Pixels, texture: NDArray[np.float32], strength: float) -> Pixels:
    """Colours made lighter and darker by a texture around 0."""
    return colours * (1 + strength * texture[..., None])


def add_hills(
    place: Place,
    light: Light,
    size: int,
    rng: np.random.Generator,
    pixels: Pixels,
    *,
    colour: RGB,
    swing: float = 0.07,
) -> None:
    """Two rolling lines of hills at the horizon."""
    for step in (2, 1):
        line = ridge(
            rng, size, level=place.horizon - 0.035 * step, swing=swing, waves=0.7 + step * 0.4
        )
        tone = 1.12 - 0.1 * step
        faded = (colour[0] * tone, colour[1] * tone, colour[2] * tone)
        shade = in_light(faded, light, 0.5 + 0.25 * step)
        fill_below(pixels, line, np.broadcast_to(np.asarray(shade, np.float32), pixels.shape))


def add_specks(
    pixels: Pixels,
    rng: np.random.Generator,
    light: Light,
    *,
    start: float,
    colours: tuple[RGB, ...],
    number: int = 18,
) -> None:
    """Specks too small to be things: blossoms, pebbles."""
    size = len(pixels)
    thick = max(1, round(size / 96))
    for x, y, pick in zip(
        rng.integers(0, size - thick, number),
        rng.integers(int(size * start), size - thick, number),
        rng.integers(0, len(colours), number),
        strict=True,
    ):
        part = pixels[y : y + thick, x : x + thick]
        part += (np.asarray(in_light(colours[pick], light, 0.0), np.float32) - part) * 0.8
