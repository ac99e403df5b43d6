"""Attention maps as colours over photographs.

Shares of attention are drawn in inferno, whose lightness rises evenly, so that what was not looked
at lies in the dark; it rises with the root of the share, lest one peak put all else there. Ratios
are drawn in purple (less) and orange (more), which stay apart for colour-blind eyes, and fade where
there is nothing to tell. The photograph is grey.
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
"""Where inferno is yellow; beyond, it is so pale that it looks grey over a photograph."""
LOWEST_TOP = 4.0
"""A scale of shares reaches at least to four times an even share: flat maps look flat."""
TICK_DISTANCE = 0.1
"""Least distance of a tick from the last one, as a share of the scale."""
RATIO_LIMIT = 4.0
"""Ratios beyond this, and below its inverse, look alike."""


@dataclass(frozen=True)
class Scale:
    """Which colour a value has."""

    colormap: str
    """As matplotlib calls it."""
    low: float
    high: float
    opacity: tuple[float, float]
    """In the middle of the scale, and at its ends."""
    ticks: tuple[tuple[float, str], ...]
    meaning: str
    reach: float = 1.0
    """How much of the colour map is used, from its start."""

    def places(self, values: Values) -> Values:
        """Values, clipped, as places on the scale from 0 to 1."""
        return ((values - self.low) / (self.high - self.low)).clip(0, 1)


def share_scale(values: Values, *, num_cells: int) -> Scale:
    """For what `roots_of_shares` gave, up to the largest."""
    top = max(LOWEST_TOP**0.5, float(values.max(initial=0)))
    whole = [
        (float(root), f"{root**2}") for root in range(math.floor(top - TICK_DISTANCE * top) + 1)
    ]
    ticks = (*whole, (top, f"{top**2:.3g}"))
    meaning = f"attention, in even shares (1/{num_cells} each)"
    return Scale("inferno", 0, top, (0.6, 0.6), ticks, meaning, reach=YELLOW)


def ratio_scale() -> Scale:
    """For the binary logarithms of ratios."""
    limit = float(np.log2(RATIO_LIMIT))
    ticks = ((-limit, "≤ ¼"), (-1, "½"), (0, "1"), (1, "2"), (limit, "≥ 4"))
    return Scale("PuOr_r", -limit, limit, (0.05, 0.65), ticks, "attention, times its usual")


def roots_of_shares(maps: Values) -> Values:
    """Square roots of maps (..., h, w) in even shares: 1 is what each cell gets in a flat map."""
    return np.sqrt(maps * np.float32(maps.shape[-2] * maps.shape[-1]))


def in_doublings(ratios: Values) -> Values:
    """Binary logarithms: 1 is twice as much, -1 half as much."""
    return np.log2(ratios.clip(1 / RATIO_LIMIT, RATIO_LIMIT))


def overlay(photo: Image.Image, values: Values, scale: Scale) -> Image.Image:
    """The colours of a map (h, w), smoothly enlarged, over a photograph that turns grey."""
    enlarged = Image.fromarray(values).resize(photo.size, Image.Resampling.BICUBIC)
    places = scale.places(np.asarray(enlarged))  # (H, W)
    colors = colormaps[scale.colormap](places * scale.reach)[..., :3]  # (H, W, 3)
    middle, ends = scale.opacity
    opacity = (middle + (ends - middle) * abs(2 * places - 1))[..., None]
    grey = np.asarray(ImageOps.grayscale(photo))[..., None] / 255  # (H, W, 1)
    return Image.fromarray(
        (255 * (grey * (1 - opacity) + colors * opacity)).round().astype("uint8")
    )


def color_bar(scale: Scale, *, width: int, size: int) -> Image.Image:
    """The scale with its ticks, as it looks over middle grey, in letters of `size` pixels."""
    height, margin = 2 * size, 2 * size
    bar = Image.new("RGB", (width, height + 3 * size), "white")
    steps = np.linspace(scale.low, scale.high, width - 2 * margin, dtype=np.float32)
    grey = Image.new("RGB", (len(steps), size), (128, 128, 128))
    bar.paste(overlay(grey, np.tile(steps, (size, 1)), scale), (margin, height))
    draw, font = ImageDraw.Draw(bar), font_of(size)
    draw.text((width / 2, size / 2), scale.meaning, "black", font, anchor="mt")
    for value, label in scale.ticks:
        x = margin + (value - scale.low) / (scale.high - scale.low) * (len(steps) - 1)
        draw.line((x, height + size, x, height + 1.3 * size), "black")
        draw.text((x, height + 1.5 * size), label, "black", font, anchor="mt")
    return bar
