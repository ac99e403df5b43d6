"""Colors that captions may name, colors of materials, and their change in the light."""

from dataclasses import dataclass
from functools import lru_cache

RGB = tuple[float, float, float]

COLORS: dict[str, RGB] = {
    "red": (212, 54, 52), "orange": (242, 140, 44), "yellow": (250, 208, 66),
    "green": (76, 160, 84), "blue": (52, 112, 204), "purple": (136, 82, 182),
    "pink": (244, 142, 176), "brown": (146, 92, 54), "black": (50, 50, 58),
    "white": (246, 245, 240), "gray": (146, 150, 158),
}  # fmt: skip
"""Colors by the names that captions use; an object's own color is one of these, slightly varied."""

MATERIALS: dict[str, RGB] = {
    "ink": (36, 34, 44), "tire": (46, 46, 54), "steel": (178, 186, 196), "iron": (104, 110, 122),
    "glass": (176, 218, 238), "wood": (166, 114, 66), "bark": (112, 78, 54),
    "leaf": (72, 146, 74), "stem": (82, 140, 62), "skin": (240, 194, 158), "tan": (196, 142, 104),
    "umber": (124, 82, 58), "rose": (244, 160, 166), "cream": (252, 238, 208),
    "crust": (218, 158, 84), "dough": (236, 188, 116), "sand": (228, 200, 140),
    "cheese": (250, 206, 88), "chocolate": (98, 62, 44), "beak": (246, 160, 48),
    "gold": (248, 192, 56), "stone": (170, 166, 160), "brick": (184, 92, 72),
    "roof": (172, 74, 60), "ice": (214, 236, 248), "denim": (66, 88, 136), "moon": (246, 240, 212),
    "sun": (255, 222, 84), "flame": (255, 176, 58), "cloud": (250, 252, 255),
    "blush": (238, 128, 128), "melon": (236, 84, 88), "navy": (44, 58, 104),
    "lamp": (255, 244, 196), "window": (176, 218, 238), "lit": (255, 220, 120),
}  # fmt: skip
"""Colors of the fixed parts of objects; captions do not name them."""

GLOWING = frozenset({"sun", "moon", "lit", "lamp", "flame"})
"""Materials that give light, so that night does not darken them."""


@dataclass(frozen=True)
class Light:
    """Light of an hour or a weather."""

    name: str
    tint: RGB = (1.0, 1.0, 1.0)
    """Factor on the color of everything that does not glow."""
    mist: RGB = (226, 230, 234)
    mist_near: float = 0.0
    """Share of `mist` in front of the nearest objects."""
    mist_far: float = 0.0
    """Share of `mist` in front of the horizon."""
    dark: bool = False
    """Whether windows and lamps are lit."""

    def haze(self, depth: float) -> float:
        """Return the share of `mist` in front of a depth: 0 is near, 1 the horizon."""
        return self.mist_near + (self.mist_far - self.mist_near) * depth

    def on(self, color: RGB, depth: float) -> RGB:
        """Return a color in this light, seen through the mist before it."""
        haze = self.haze(depth)
        red, green, blue = (
            channel * tint + (mist - channel * tint) * haze
            for channel, tint, mist in zip(color, self.tint, self.mist, strict=True)
        )
        return (red, green, blue)


LIGHTS = {
    light.name: light
    for light in (
        Light("day"),
        Light("dusk", tint=(1.04, 0.86, 0.80), mist=(250, 180, 130), mist_near=0.03, mist_far=0.2),
        Light("night", tint=(0.52, 0.56, 0.72), mist=(40, 50, 92), mist_near=0.04, mist_far=0.25,
              dark=True),
        Light("fog", tint=(0.97, 0.98, 1.0), mist=(222, 226, 230), mist_near=0.12, mist_far=0.66),
        Light("rain", tint=(0.78, 0.83, 0.90), mist=(158, 170, 184), mist_near=0.06, mist_far=0.4),
        Light("lamplight", tint=(0.88, 0.75, 0.62), mist=(90, 60, 40), dark=True),
    )
}  # fmt: skip


@lru_cache(maxsize=4096)
def shade(name: str, main: RGB, second: RGB) -> RGB:
    """Return the color that a name stands for.

    Args:
        name: `main`, `second`, `patch` (ink on a bright `main`, white on a dark one), a color or
            a material; each `-` at its end darkens it, each `+` lightens it.
        main: Color of the object.
        second: Color of its stripes, spots or details.
    """
    base = name.rstrip("+-")
    patch = MATERIALS["ink"] if main[0] > 200 else COLORS["white"]
    own = {"main": main, "second": second, "patch": patch}
    color = own[base] if base in own else COLORS.get(base) or MATERIALS[base]
    for sign in name[len(base) :]:
        color = _darker(color) if sign == "-" else _lighter(color)
    return color


def _darker(color: RGB) -> RGB:
    red, green, blue = color
    return (red * 0.76, green * 0.74, blue * 0.80)


def _lighter(color: RGB) -> RGB:
    red, green, blue = color
    return (red + (255 - red) * 0.38, green + (252 - green) * 0.38, blue + (240 - blue) * 0.36)
