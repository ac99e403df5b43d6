"""Canvas that backdrops are painted on: gradients, noise, rolling lines, haze."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from virtex.data.sources.scenes.palette import RGB, Light

Pixels = NDArray[np.float32]
"""(S, S, 3), 0 to 255."""
Texture = NDArray[np.float32]
"""(S, S), about -1 to 1."""
Line = NDArray[np.float32]
"""(S,): a height in pixels for each column."""

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


class Canvas:
    """Square image, painted from the back to the front.

    Each call takes its random numbers from `rng`, so their order is part of what a seed gives.

    Args:
        horizon: Height of the horizon, as a share of the image from its top.
    """

    def __init__(
        self, size: int, *, light: Light, horizon: float, rng: np.random.Generator
    ) -> None:
        self.size, self.light, self.horizon, self.rng = size, light, horizon, rng
        self.pixels: Pixels = np.zeros((size, size, 3), np.float32)

    def noise(self, across: int, down: int) -> Texture:
        """Return smooth values with so many bumps across and down."""
        cells = self.rng.integers(0, 256, (max(2, down), max(2, across)), dtype=np.uint8)
        size = (self.size, self.size)
        image = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(image, np.float32) / 127.5 - 1

    def ridge(self, level: float, *, swing: float, waves: float) -> Line:
        """Return a rolling line around a level, which is a share of the image from its top."""
        x = np.linspace(0, 2 * np.pi, self.size, dtype=np.float32)
        phases = self.rng.uniform(0, 2 * np.pi, 3)
        line = sum(np.sin(x * waves * (k + 1) + phases[k]) / (k + 1.3) for k in range(3))
        return self.size * (level + swing * 0.5 * np.asarray(line, np.float32))

    def level(self, level: float) -> Line:
        """Return a straight line at a level."""
        return np.full(self.size, self.size * level, np.float32)

    def lit(self, color: RGB, depth: float) -> NDArray[np.float32]:
        """Return a color (3,) in the light, seen through the haze before it."""
        return np.asarray(self.light.on(color, depth), np.float32)

    def blend(self, top: RGB | Pixels, bottom: RGB | Pixels) -> None:
        """Fill the canvas with a gradient from its top to its bottom."""
        self.pixels = np.repeat(gradient(top, bottom, self.size), self.size, axis=1)

    def fill_below(self, line: Line, colors: NDArray[np.float32]) -> None:
        """Paint a color (3,) or colors (S, S, 3) below a line, with a soft edge."""
        first = max(0, int(line.min()) - 1)
        rows = np.arange(first, self.size, dtype=np.float32)[:, None]
        cover = np.clip(rows - line + 0.5, 0, 1)[..., None]
        part = self.pixels[first:]
        part += (np.broadcast_to(colors, self.pixels.shape)[first:] - part) * cover

    def ground_colors(self, *, far: RGB, near: RGB, start: float) -> Pixels:
        """Return colors (S, S, 3) from haze at the level `start` to the foreground."""
        top = int(self.size * start)
        horizon = self.lit(far, 1.0)
        column = np.empty((self.size, 1, 3), np.float32)
        column[:top] = horizon
        column[top:] = gradient(horizon, self.lit(near, 0.0), self.size - top)
        return np.repeat(column, self.size, axis=1)

    def ground(
        self,
        line: Line,
        *,
        far: RGB,
        near: RGB,
        start: float | None = None,
        texture: Texture | None = None,
        strength: float = 0.0,
    ) -> None:
        """Paint the ground below a line.

        Args:
            far: Color at the level `start`.
            near: Color at the bottom of the image.
            start: Level where the haze ends; the horizon by default.
            texture: Makes the ground lighter and darker, as far as `strength`.
        """
        start = self.horizon if start is None else start
        colors = self.ground_colors(far=far, near=near, start=start)
        self.fill_below(line, colors if texture is None else textured(colors, texture, strength))

    def sky(self) -> None:
        """Fill the canvas with sky, palest at the horizon, with stars or wisps of cloud."""
        skies = _SKIES[self.light.name]
        top, bottom = skies[self.rng.integers(len(skies))]
        height = max(2, min(self.size, int(self.size * (self.horizon + 0.08))))
        self.pixels[:height] = gradient(top, bottom, height)
        self.pixels[height:] = bottom
        if self.light.name == "night":
            self.stars(height, number=26)
        elif self.light.name != "fog":
            wisps = np.clip(self.noise(3, 9) - 0.25, 0, 1)[:height, :, None]
            part = self.pixels[:height]
            part += (np.asarray(bottom, np.float32) + 12 - part) * wisps * 0.5

    def stars(self, height: int, *, number: int) -> None:
        """Add points of light in the top `height` rows."""
        last = self.size - 1
        rows = self.rng.integers(0, max(1, height - 2), number)
        columns = self.rng.integers(0, last, number)
        glow = self.rng.uniform(60, 190, (number, 1)).astype(np.float32)
        for row, column in np.ndindex((max(1, self.size // 128),) * 2):
            spots = (np.minimum(rows + row, last), np.minimum(columns + column, last))
            self.pixels[spots] = np.minimum(self.pixels[spots] + glow, 255)

    def hills(self, color: RGB, *, swing: float = 0.07) -> None:
        """Paint two rolling lines of hills at the horizon."""
        for step in (2, 1):
            line = self.ridge(self.horizon - 0.035 * step, swing=swing, waves=0.7 + step * 0.4)
            tone = 1.12 - 0.1 * step
            faded = (color[0] * tone, color[1] * tone, color[2] * tone)
            self.fill_below(line, self.lit(faded, 0.5 + 0.25 * step))

    def specks(self, colors: tuple[RGB, ...], *, start: float, number: int = 18) -> None:
        """Add specks too small to be objects, such as blossoms, below the level `start`."""
        thick = max(1, round(self.size / 96))
        last = self.size - thick
        for x, y, pick in zip(
            self.rng.integers(0, last, number),
            self.rng.integers(int(self.size * start), last, number),
            self.rng.integers(0, len(colors), number),
            strict=True,
        ):
            part = self.pixels[y : y + thick, x : x + thick]
            part += (self.lit(colors[pick], 0.0) - part) * 0.8


def gradient(top: RGB | Pixels, bottom: RGB | Pixels, height: int) -> Pixels:
    """Return colors (height, 1, 3) from `top` to `bottom`."""
    share = np.linspace(0, 1, max(height, 1), dtype=np.float32)[:, None, None]
    return np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share


def textured(colors: NDArray[np.float32], texture: Texture, strength: float) -> Pixels:
    """Return colors (S, S, 3) made lighter and darker by a texture."""
    return colors * (1 + strength * texture[..., None])
