"""Text in pictures, in the font that matplotlib brings along."""

import functools
from pathlib import Path

from matplotlib import get_data_path
from PIL import ImageFont

Font = ImageFont.FreeTypeFont
SMALLEST = 11
"""Pixels; smaller letters cannot be read."""
ELLIPSIS = "…"


@functools.cache
def font_of(size: int) -> Font:
    """DejaVu Sans, whose capitals are about 0.7 `size` pixels high."""
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def fitted(text: str, *, width: int, size: int) -> tuple[str, Font]:
    """A text and the font in which it takes at most `width` pixels: smaller, then cut short."""
    for smaller in range(size, SMALLEST, -1):
        if font_of(smaller).getlength(text) <= width:
            return text, font_of(smaller)
    font = font_of(SMALLEST)
    if font.getlength(text) <= width:
        return text, font
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS, font


def wrapped(text: str, *, width: int, font: Font) -> list[str]:
    """The lines of a text, broken between words; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
