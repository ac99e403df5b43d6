"""Text in images, in the font that matplotlib includes."""

import functools
from pathlib import Path

from matplotlib import get_data_path
from PIL import ImageFont

Font = ImageFont.FreeTypeFont
SMALLEST = 11
"""Smallest legible font size, in pixels."""
ELLIPSIS = "…"


@functools.cache
def font_of(size: int) -> Font:
    """Return DejaVu Sans of a size in pixels; its capitals are about 0.7 times as high."""
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def fitted(text: str, *, width: int, size: int) -> tuple[str, Font]:
    """Return a text of at most `width` pixels and its font: first made smaller, then cut."""
    for smaller in range(max(size, SMALLEST), SMALLEST - 1, -1):
        font = font_of(smaller)
        if font.getlength(text) <= width:
            return text, font
    while text and font.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text + ELLIPSIS, font


def wrapped(text: str, *, width: int, font: Font) -> list[str]:
    """Return the lines of a text, broken between words; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
