"""Draw one object at several times its size with a pen, and reduce it to a sprite."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from virtex.data.sources.scenes.palette import GLOWING, RGB, Light, shade

Coordinates = Sequence[float]
"""Values x, y, x, y ... in the units of the kind's canvas."""


_CIRCLE = np.stack([trig(np.arange(28) * np.pi / 14) for trig in (np.cos, np.sin)], axis=1)


@dataclass(frozen=True)
class Look:
    """Appearance of one object, apart from its kind and size."""

    main: RGB
    second: RGB
    pattern: str
    """Pattern of the second color on the main one: `plain`, `striped` or `spotted`."""
    mirrored: bool
    tilt: float
    """Rotation in degrees, counter-clockwise."""
    light: Light
    depth: float
    """Depth in the mist, from 0 in the foreground to 1 at the horizon."""
    variant: int
    """Number that fixes the details that no caption names."""


@dataclass(frozen=True)
class Sprite:
    """Drawn object, cropped to its own pixels."""

    color: NDArray[np.float32]
    """RGB values (h, w, 3), 0 to 255."""
    alpha: NDArray[np.float32]
    """Coverage (h, w), 0 to 1."""


class Pen:
    """Pen that draws shapes in palette indices; a later shape covers an earlier one.

    The main arguments of each shape are the name of a color (see `palette.shade`) and its
    coordinates. Index 0 is `none`, which is transparent.
    """

    def __init__(self, canvas: tuple[float, float], *, scale: float, look: Look) -> None:
        size = (max(1, math.ceil(canvas[0] * scale)), max(1, math.ceil(canvas[1] * scale)))
        self.image = Image.new("L", size)
        self.look = look
        self.names: list[str] = ["none"]
        self._scale = scale
        self._draw = ImageDraw.Draw(self.image)

    def choose(self, options: Sequence[str], *, salt: int = 0) -> str:
        """Return one of the options, fixed by the object's variant."""
        return options[(self.look.variant // (7 * salt + 1)) % len(options)]

    def oval(self, name: str, shape: Coordinates, *, turn: float = 0.0) -> None:
        """Draw an ellipse of center x, y and radii rx, ry, turned clockwise by `turn` degrees."""
        if not turn:
            self._draw.ellipse(self._around(shape), fill=self._color(name))
            return
        x, y, rx, ry = shape
        cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        points = (_CIRCLE * (rx, ry)) @ np.array(((cos, sin), (-sin, cos))) + (x, y)
        self.polygon(name, points.ravel().tolist())

    def pie(self, name: str, shape: Coordinates, *, start: float = 180, end: float = 360) -> None:
        """Draw a sector of the ellipse x, y, rx, ry, which is its upper half by default.

        Args:
            start: Degrees, clockwise from three o'clock.
            end: Degrees, as `start`.
        """
        self._draw.pieslice(self._around(shape), start, end, fill=self._color(name))

    def ring(self, name: str, shape: Coordinates, *, width: float) -> None:
        """Draw the outline of the ellipse x, y, rx, ry inwards."""
        self._draw.ellipse(
            self._around(shape), outline=self._color(name), width=self._thickness(width)
        )

    def arch(self, name: str, shape: Coordinates, *, width: float) -> None:
        """Draw the upper half of an ellipse's outline."""
        self._draw.arc(
            self._around(shape), 180, 360, fill=self._color(name), width=self._thickness(width)
        )

    def box(self, name: str, shape: Coordinates, *, radius: float = 0.0) -> None:
        """Draw a rectangle x1, y1, x2, y2 with rounded corners."""
        corners = [value * self._scale for value in shape]
        if radius:
            self._draw.rounded_rectangle(corners, radius * self._scale, fill=self._color(name))
        else:
            self._draw.rectangle(corners, fill=self._color(name))

    def polygon(self, name: str, points: Coordinates) -> None:
        """Draw a closed shape with straight edges."""
        self._draw.polygon([value * self._scale for value in points], fill=self._color(name))

    def blob(self, name: str, points: Coordinates) -> None:
        """Draw a closed smooth shape through the points."""
        self.polygon(name, _closed_curve(tuple(points)))

    def line(self, name: str, points: Coordinates, *, width: float) -> None:
        """Draw straight strokes from point to point with round ends."""
        scaled = [value * self._scale for value in points]
        thickness, color = max(1.0, width * self._scale), self._color(name)
        self._draw.line(scaled, fill=color, width=round(thickness), joint="curve")
        radius = thickness / 2
        if radius < 1:
            return
        for x, y in (scaled[:2], scaled[-2:]):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def curve(self, name: str, points: Coordinates, *, width: float) -> None:
        """Draw a smooth stroke through the points."""
        self.line(name, _open_curve(tuple(points)), width=width)

    def leg(self, name: str, shape: Coordinates) -> None:
        """Draw a straight leg in the rectangle x1, y1, x2, y2."""
        self.box(name, shape, radius=(shape[2] - shape[0]) * 0.4)

    def hoof(self, name: str, shape: Coordinates) -> None:
        """Draw the hoof of the leg in the rectangle x1, y1, x2, y2."""
        left, _, right, foot = shape
        self.box(name, (left, foot - (right - left) * 0.6, right, foot), radius=1)

    def eye(self, name: str, shape: Coordinates) -> None:
        """Draw an eye with a glint, of center x, y and a radius."""
        x, y, radius = shape
        self.oval(name, (x, y, radius, radius * 1.1))
        self.oval("white", (x + radius * 0.3, y - radius * 0.4, radius * 0.34, radius * 0.34))

    def wheel(self, name: str, shape: Coordinates) -> None:
        """Draw a tire of center x, y and a radius, with a hub in the color."""
        x, y, radius = shape
        for color, share in (("tire", 1.0), (name, 0.56), ("iron", 0.2)):
            self.oval(color, (x, y, radius * share, radius * share))

    def pattern(self, name: str, *, style: str, over: str, period: float) -> None:
        """Break the parts drawn in the color `over` with stripes or spots of the color `name`."""
        if over not in self.names:
            return
        pixels = np.asarray(self.image)
        rows, columns = np.indices(pixels.shape, dtype=np.float32) / (period * self._scale)
        chosen = _stripes(rows, columns) if style == "striped" else _spots(rows, columns)
        chosen &= pixels == self.names.index(over)
        self.image = Image.fromarray(np.where(chosen, np.uint8(self._color(name)), pixels))
        self._draw = ImageDraw.Draw(self.image)

    def _around(self, ellipse: Coordinates) -> list[float]:
        """Return the rectangle around an ellipse in pixels."""
        x, y, rx, ry = ellipse
        return [value * self._scale for value in (x - rx, y - ry, x + rx, y + ry)]

    def _thickness(self, width: float) -> int:
        return max(1, round(width * self._scale))

    def _color(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)


def render(
    draw: Callable[[Pen], None], canvas: tuple[float, float], *, height: float, look: Look
) -> Sprite:
    """Draw an object so that its canvas is `height` pixels high, and crop it to what it covers."""
    oversampling = 4 if height < 96 else 3 if height < 192 else 2
    pen = Pen(canvas, scale=height * oversampling / canvas[1], look=look)
    draw(pen)
    if look.pattern != "plain":
        pen.pattern("second", style=look.pattern, over="main", period=min(canvas) / 5)
    image = pen.image
    if look.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if look.tilt:
        image = image.rotate(look.tilt, Image.Resampling.NEAREST, expand=True)
    image.putpalette(_graded(pen.names, look), "RGBA")
    return _shaded(image.convert("RGBA").reduce(oversampling))


def _graded(names: Sequence[str], look: Look) -> bytes:
    """Return the palette of an object in its light as RGBA bytes."""
    light = look.light
    colors = np.zeros((len(names), 4))
    for index, name in enumerate(names[1:], start=1):
        lit = "lit" if name == "window" and light.dark else name
        colors[index, :3] = shade(lit, look.main, look.second)
        if lit.rstrip("+-") not in GLOWING:
            colors[index, :3] *= light.tint
    colors[1:, :3] += (np.array(light.mist) - colors[1:, :3]) * light.haze(look.depth)
    colors[1:, 3] = 255
    return colors.clip(0, 255).astype(np.uint8).tobytes()


def _shaded(image: Image.Image) -> Sprite:
    """Shade a flat drawing as if it were a cushion lit from the upper left."""
    box = image.getbbox() or (0, 0, 1, 1)
    image = image.crop(box)
    width, height = image.size
    reach = max(1, round(min(width, height) * 0.07))
    padded = Image.new("L", (width + 4 * reach, height + 4 * reach))
    padded.paste(image.getchannel("A"), (2 * reach, 2 * reach))
    soft = np.asarray(padded.filter(ImageFilter.BoxBlur(reach * 1.4)), np.float32) / 255
    inner = soft[3 * reach : 3 * reach + height, 3 * reach : 3 * reach + width]
    outer = soft[reach : reach + height, reach : reach + width]
    fall = np.linspace(1.06, 0.93, height, dtype=np.float32)[:, None]
    shading = fall + 0.26 * (inner - outer)
    pixels = np.asarray(image, np.float32)
    color = pixels[..., :3] * shading[..., None]
    return Sprite(color.astype(np.float32), (pixels[..., 3] / 255).astype(np.float32))


def _stripes(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.bool_]:
    return (0.9 * columns + 0.35 * rows) % 1.0 < 0.42


def _spots(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.bool_]:
    shifted = columns + 0.5 * (np.floor(rows) % 2)
    return np.hypot(rows % 1.0 - 0.5, shifted % 1.0 - 0.5) < 0.30


@lru_cache(maxsize=4096)
def _closed_curve(points: tuple[float, ...]) -> list[float]:
    """Return a Catmull-Rom spline through the points and back to the first."""
    corners = np.array(points).reshape(-1, 2)
    return _spline(np.concatenate((corners[-1:], corners, corners[:2])))


@lru_cache(maxsize=4096)
def _open_curve(points: tuple[float, ...]) -> list[float]:
    corners = np.array(points).reshape(-1, 2)
    return _spline(np.concatenate((corners[:1], corners, corners[-1:])))


def _spline(knots: NDArray[np.float64], *, steps: int = 7) -> list[float]:
    before, start, end, after = knots[:-3], knots[1:-2], knots[2:-1], knots[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    points = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )  # (steps, segments, 2)
    path = points.transpose(1, 0, 2).reshape(-1, 2)
    return np.concatenate((path, end[-1:])).ravel().tolist()
