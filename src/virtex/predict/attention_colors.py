"""Attention maps as colors over images.

Fractions of attention are drawn in inferno, whose lightness rises evenly: where the decoder did not
look, the image is dark. Colors follow the square root of the fraction, so that one peak does not
darken all else. Ratios are drawn in purple (less) and orange (more), which color-blind people can
tell apart, and are transparent near 1. The image beneath is gray.
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from virtex.predict.lettering import font_of

Values = NDArray[np.float32]
YELLOW = 0.9
"""Position of yellow in inferno; the paler colors beyond it look gray over an image."""
LOWEST_TOP = 4.0
"""Lowest upper end of the scale of fractions, in multiples of uniform attention. Without it, maps
that are nearly uniform would seem to have peaks."""
TICK_DISTANCE = 0.1
"""Smallest distance between the last two ticks, as a fraction of the scale's length."""
RATIO_LIMIT = 4.0
"""Largest ratio on the scale; the smallest is its inverse."""


@dataclass(frozen=True)
class Scale:
    """Colors and opacities of values."""

    colormap: str
    """Name in matplotlib."""
    low: float
    high: float
    opacity: tuple[float, float]
    """Opacity in the middle of the scale, and at its ends."""
    ticks: tuple[tuple[float, str], ...]
    """Values to mark, and their labels."""
    title: str
    reach: float = 1.0
    """Fraction of the colormap that is used, from its start."""

    def positions(self, values: Values) -> Values:
        """Return the positions of values on the scale, clipped to [0, 1]."""
        return ((values - self.low) / (self.high - self.low)).clip(0, 1)

    def paint(self, values: Values) -> tuple[Values, Values]:
        """Return the colors (h, w, 3) and opacities (h, w, 1) of values (h, w), from 0 to 1."""
        positions = self.positions(values)
        middle, ends = self.opacity
        opacity = middle + (ends - middle) * abs(2 * positions - 1)
        return colormaps[self.colormap](positions * self.reach)[..., :3], opacity[..., None]


def scale_fractions(maps: Values, *, of: str = "attention") -> tuple[Values, Scale]:
    """Return the values of maps (..., h, w) that sum to one, and the scale to draw them on.

    A value is the square root of the attention, or what else the maps are `of`, relative to a
    uniform map, whose values are 1.
    """
    num_cells = maps.shape[-2] * maps.shape[-1]
    values = np.sqrt(maps * np.float32(num_cells))
    top = max(LOWEST_TOP**0.5, float(values.max(initial=0)))
    whole = [
        (float(root), f"{root**2}") for root in range(math.floor(top - TICK_DISTANCE * top) + 1)
    ]
    ticks = (*whole, (top, f"{top**2:.3g}"))
    title = f"{of}, relative to uniform (1/{num_cells})"
    return values, Scale("inferno", 0, top, (0.6, 0.6), ticks, title, reach=YELLOW)


def scale_ratios(maps: Values) -> tuple[Values, Scale]:
    """Return the binary logarithms of ratios, clipped to the scale, and that scale."""
    limit = float(np.log2(RATIO_LIMIT))
    ticks = ((-limit, "≤ ¼"), (-1, "½"), (0, "1"), (1, "2"), (limit, "≥ 4"))
    scale = Scale("PuOr_r", -limit, limit, (0.05, 0.65), ticks, "attention, relative to usual")
    return np.log2(maps.clip(1 / RATIO_LIMIT, RATIO_LIMIT)), scale


def overlay(image: Image.Image, values: Values, scale: Scale) -> Image.Image:
    """Return the colors of values (h, w), smoothly enlarged, over the image in gray."""
    enlarged = Image.fromarray(values).resize(image.size, Image.Resampling.BICUBIC)
    colors, opacity = scale.paint(np.asarray(enlarged))  # (H, W, 3), (H, W, 1)
    gray = np.asarray(ImageOps.grayscale(image))[..., None] / 255  # (H, W, 1)
    blended = gray * (1 - opacity) + colors * opacity
    return Image.fromarray((255 * blended).round().astype("uint8"))


def color_bar(scale: Scale, *, width: int, size: int) -> Image.Image:
    """Return an image of the scale over gray, with ticks and title in letters of `size` pixels."""
    height, margin = 2 * size, 2 * size
    bar = Image.new("RGB", (width, height + 3 * size), "white")
    steps = np.linspace(scale.low, scale.high, width - 2 * margin, dtype=np.float32)
    gray = Image.new("RGB", (len(steps), size), (128, 128, 128))
    bar.paste(overlay(gray, np.tile(steps, (size, 1)), scale), (margin, height))
    draw, font = ImageDraw.Draw(bar), font_of(size)
    draw.text((width / 2, size / 2), scale.title, "black", font, anchor="mt")
    for value, label in scale.ticks:
        x = margin + (value - scale.low) / (scale.high - scale.low) * (len(steps) - 1)
        draw.line((x, height + size, x, height + 1.3 * size), "black")
        draw.text((x, height + 1.5 * size), label, "black", font, anchor="mt")
    return bar
