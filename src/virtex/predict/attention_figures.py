"""Pictures of a caption's attention: a photograph for each word, coloured where it was looked at.

A panel shows what the network saw: the centre of the photograph, cut from the file itself, so that
it is sharper than the network's own input.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from virtex import files
from virtex.data.images import Box, open_image
from virtex.data.transforms import ImageConfig, central_crop
from virtex.predict.attention import CaptionAttention, Weights
from virtex.predict.attention_colors import (
    Scale,
    color_bar,
    in_doublings,
    overlay,
    ratio_scale,
    roots_of_shares,
    share_scale,
)
from virtex.predict.image_inputs import ImageInput, as_example
from virtex.predict.lettering import fitted, font_of, wrapped

PANEL_SIDE, HEAD_PANEL_SIDE = 200, 120
COLUMNS = 6
"""Panels of a row, of which the first is the photograph."""
GAP = 10
WORD_SIZE, TITLE_SIZE, SMALL_SIZE = 20, 22, 14
"""Of letters, in pixels."""
BAR_WIDTH = 380
LONGEST_STEM = 80
READINGS = {"forward": "said left to right", "backward": "said right to left"}

Panel = tuple[Image.Image, str]
"""A picture, and what stands beneath it."""


def caption_strip(
    picture: ImageInput,
    attention: CaptionAttention,
    image: ImageConfig,
    *,
    layer: int | None = None,
    head: int | None = None,
    bias: Weights | None = None,
) -> Image.Image:
    """The photograph, then a panel for each word, in rows.

    Args:
        image: How the photograph became the network's input.
        layer: As of `CaptionAttention.maps`, like `head` and `bias`.
    """
    maps = attention.maps(layer, head, bias=bias)  # (W, h, w)
    values, scale = _scaled(maps, is_ratio=bias is not None)
    photo = attended_photo(picture, image, side=PANEL_SIDE)
    overlaid = [overlay(photo, value, scale) for value in values]
    panels = [(photo, ""), *zip(overlaid, attention.words, strict=True)]
    num_layers, num_heads = attention.weights.shape[:2]
    shown = (_shown("layer", layer, num_layers), _shown("head", head, num_heads))
    return _titled(attention, "; ".join(shown), scale, _table(panels, columns=COLUMNS))


def heads_figure(
    picture: ImageInput,
    attention: CaptionAttention,
    image: ImageConfig,
    *,
    bias: Weights | None = None,
) -> Image.Image:
    """A row for each word: the photograph above the word, then a panel for each head."""
    heads = list(product(*map(range, attention.weights.shape[:2])))
    maps = np.stack([attention.maps(*head, bias=bias) for head in heads], 1)  # (W, L * A, h, w)
    values, scale = _scaled(maps, is_ratio=bias is not None)
    photo = attended_photo(picture, image, side=HEAD_PANEL_SIDE)
    panels: list[Panel] = []
    for word, row in zip(attention.words, values, strict=True):
        panels.append((photo, word))
        panels += [
            (overlay(photo, value, scale), f"layer {layer}, head {head}")
            for value, (layer, head) in zip(row, heads, strict=True)
        ]
    table = _table(panels or [(photo, "")], columns=1 + len(heads))
    return _titled(attention, "each head of each layer", scale, table)


def write_strip(
    path: Path,
    picture: ImageInput,
    attention: CaptionAttention,
    image: ImageConfig,
    *,
    bias: Weights | None = None,
) -> None:
    """Write `caption_strip` as a PNG file: all of it or nothing.

    Raises:
        DataError: The image cannot be read, or the file not be written.
    """
    strip = caption_strip(picture, attention, image, bias=bias)
    with files.replacing(path, durable=False) as temporary:
        strip.save(temporary, "PNG")


def write_strips(
    folder: Path, paths: Sequence[Path], attentions: Sequence[CaptionAttention], image: ImageConfig
) -> None:
    """Write a strip of each image file to a folder, as `write_strip` does."""
    for path, attention in zip(paths, attentions, strict=True):
        write_strip(folder / strip_name(str(path)), path, attention, image)


def strip_name(path: str) -> str:
    """Return a file name for the strip of an image file, unlike that of any other."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem)[:LONGEST_STEM]
    return f"{stem}-{digest}.png"


def attended_photo(picture: ImageInput, image: ImageConfig, *, side: int) -> Image.Image:
    """What `ValidationTransform` leaves of a photograph, `side` pixels wide and high.

    Raises:
        BadImageError: The image is missing, corrupt, truncated or too large.
    """
    example = as_example(picture)
    file = open_image(example.image, name=example.location)
    whole = Box(0, 0, file.height, file.width)
    min_size = math.ceil(side * image.validation_short_side / image.size)
    photo = Image.fromarray(file.decode(whole, min_size=min_size))
    box = seen_part(photo.height, photo.width, image)
    return photo.resize((side, side), Image.Resampling.LANCZOS, box=box)


def seen_part(height: int, width: int, image: ImageConfig) -> tuple[float, float, float, float]:
    """The part of a photograph that `ValidationTransform` leaves: left, top, right, bottom."""
    resized_height, resized_width, box = central_crop(height, width, image)
    down, right = height / resized_height, width / resized_width
    return (
        box.left * right,
        box.top * down,
        min((box.left + box.width) * right, width),
        min((box.top + box.height) * down, height),
    )


def _scaled(maps: Weights, *, is_ratio: bool) -> tuple[Weights, Scale]:
    """Maps (..., h, w) in the unit of the scale that goes with them."""
    if is_ratio:
        return in_doublings(maps), ratio_scale()
    values = roots_of_shares(maps)
    return values, share_scale(values, num_cells=maps.shape[-2] * maps.shape[-1])


def _shown(kind: str, index: int | None, count: int) -> str:
    if index is None:
        return f"mean of {count} {kind}s" if count > 1 else f"its only {kind}"
    return f"{kind} {index}"


def _titled(
    attention: CaptionAttention, note: str, scale: Scale, table: Image.Image
) -> Image.Image:
    """A table of panels beneath the caption, a note and the scale."""
    width = max(table.width, 2 * BAR_WIDTH)
    bar = color_bar(scale, width=BAR_WIDTH, size=SMALL_SIZE)
    title, small = font_of(TITLE_SIZE), font_of(SMALL_SIZE)
    lines = wrapped(attention.text, width=width - bar.width - 2 * GAP, font=title)
    line_height = round(1.3 * TITLE_SIZE)
    height = max(bar.height, GAP + line_height * len(lines) + 2 * SMALL_SIZE)
    whole = Image.new("RGB", (width, height + table.height), "white")
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        draw.text((GAP, GAP + line_height * number), line, "black", title)
    reading = f"{READINGS[attention.direction]}; {note}"
    draw.text((GAP, GAP + line_height * len(lines)), reading, "black", small)
    whole.paste(bar, (width - bar.width, 0))
    whole.paste(table, (0, height))
    return whole


def _table(panels: Sequence[Panel], *, columns: int) -> Image.Image:
    """Panels of one size in rows, each with its text centred beneath."""
    side = panels[0][0].width
    size = min(WORD_SIZE, side // 8)
    wide, high = side + GAP, side + 2 * size
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    table = Image.new("RGB", (GAP + columns * wide, GAP + rows * high), "white")
    draw = ImageDraw.Draw(table)
    for number, (panel, text) in enumerate(panels):
        x, y = GAP + number % columns * wide, GAP + number // columns * high
        table.paste(panel, (x, y))
        text, font = fitted(text, width=side, size=size)
        draw.text((x + side / 2, y + side + size / 4), text, "black", font, anchor="ma")
    return table
