"""Figures of a caption's attention or relevance: for each word the image, colored by its map.

A panel shows the part of the image that the network saw. It is cropped from the file itself, and
thus sharper than the network's input.
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
    overlay,
    scale_fractions,
    scale_ratios,
)
from virtex.predict.image_inputs import ImageInput, as_example
from virtex.predict.lettering import fitted, font_of, wrapped
from virtex.predict.relevance import CaptionRelevance

PANEL_SIDE, HEAD_PANEL_SIDE = 200, 120
COLUMNS = 6
"""Number of panels in a row of a strip."""
GAP = 10
WORD_SIZE, TITLE_SIZE, SMALL_SIZE = 20, 22, 14
"""Font sizes, in pixels."""
BAR_WIDTH = 380
MAX_STEM = 80
"""Largest number of letters of an image's name in the name of its strip."""
READINGS = {"forward": "read left to right", "backward": "read right to left"}
Maps = CaptionAttention | CaptionRelevance

Panel = tuple[Image.Image, str]
"""An image, and the text beneath it."""


def caption_strip(
    image: ImageInput,
    attention: CaptionAttention,
    config: ImageConfig,
    *,
    layer: int | None = None,
    head: int | None = None,
    bias: Weights | None = None,
    side: int = PANEL_SIDE,
) -> Image.Image:
    """Return a figure of the image, followed by a panel for each word, in rows.

    Args:
        config: How the image became the network's input.
        layer, head, bias: See `CaptionAttention.maps`.
        side: Width and height of a panel, in pixels.
    """
    maps = attention.maps(layer, head, bias=bias)  # (W, h, w)
    values, scale = scale_fractions(maps) if bias is None else scale_ratios(maps)
    num_layers, num_heads = attention.weights.shape[:2]
    shown = (_shown("layer", layer, num_layers), _shown("head", head, num_heads))
    table = _words_table(seen_image(image, config, side=side), attention.words, values, scale)
    note = "; ".join((READINGS[attention.direction], *shown))
    return _titled(attention.text, note, scale, table)


def relevance_strip(
    image: ImageInput, relevance: CaptionRelevance, config: ImageConfig, *, side: int = PANEL_SIDE
) -> Image.Image:
    """Return a figure of the image, followed by a panel of relevance for each word, in rows.

    Args: See `caption_strip`.
    """
    values, scale = scale_fractions(relevance.maps, of="relevance")
    table = _words_table(seen_image(image, config, side=side), relevance.words, values, scale)
    read_both = len(relevance.directions) > 1
    note = "read both ways" if read_both else READINGS[relevance.directions[0]]
    return _titled(relevance.text, note, scale, table)


def heads_figure(
    image: ImageInput,
    attention: CaptionAttention,
    config: ImageConfig,
    *,
    bias: Weights | None = None,
) -> Image.Image:
    """Return a figure with a row for each word: the image, then a panel for each head."""
    heads = list(product(*map(range, attention.weights.shape[:2])))
    maps = np.stack([attention.maps(*head, bias=bias) for head in heads], 1)  # (W, L * A, h, w)
    values, scale = scale_fractions(maps) if bias is None else scale_ratios(maps)
    seen = seen_image(image, config, side=HEAD_PANEL_SIDE)
    panels: list[Panel] = []
    for word, row in zip(attention.words, values, strict=True):
        panels.append((seen, word))
        panels += [
            (overlay(seen, value, scale), f"layer {layer}, head {head}")
            for value, (layer, head) in zip(row, heads, strict=True)
        ]
    table = _table(panels or [(seen, "")], columns=1 + len(heads))
    note = f"{READINGS[attention.direction]}; each head of each layer"
    return _titled(attention.text, note, scale, table)


def write_strip(
    path: Path,
    image: ImageInput,
    shown: Maps,
    config: ImageConfig,
    *,
    bias: Weights | None = None,
) -> None:
    """Write `caption_strip` or `relevance_strip` as a PNG file, atomically.

    Args:
        bias: See `caption_strip`; relevance is not divided.

    Raises:
        DataError: The image cannot be read, or the file cannot be written.
    """
    if isinstance(shown, CaptionRelevance):
        strip = relevance_strip(image, shown, config)
    else:
        strip = caption_strip(image, shown, config, bias=bias)
    with files.replacing(path, durable=False) as temporary:
        strip.save(temporary, "PNG")


def strip_name(path: str) -> str:
    """Return a file name for the strip of an image file, different for each path."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem)[:MAX_STEM]
    return f"{stem}-{digest}.png"


def seen_image(image: ImageInput, config: ImageConfig, *, side: int) -> Image.Image:
    """Return the part of an image that the network sees, `side` pixels wide and high.

    Raises:
        BadImageError: The image is missing, corrupt, truncated or too large.
    """
    example = as_example(image)
    file = open_image(example.image, name=example.location)
    whole = Box(0, 0, file.height, file.width)
    min_size = math.ceil(side * config.validation_short_side / config.size)
    decoded = Image.fromarray(file.decode(whole, min_size=min_size))
    box = seen_part(decoded.height, decoded.width, config)
    return decoded.resize((side, side), Image.Resampling.LANCZOS, box=box)


def seen_part(height: int, width: int, config: ImageConfig) -> tuple[float, float, float, float]:
    """Return the part of an image that the validation crop leaves: left, top, right, bottom."""
    resized_height, resized_width, box = central_crop(height, width, config)
    down, right = height / resized_height, width / resized_width
    return (
        box.left * right,
        box.top * down,
        min((box.left + box.width) * right, width),
        min((box.top + box.height) * down, height),
    )


def _shown(kind: str, index: int | None, count: int) -> str:
    if index is None:
        return f"mean of {count} {kind}s" if count > 1 else f"its only {kind}"
    return f"{kind} {index}"


def _words_table(
    seen: Image.Image, words: Sequence[str], values: Weights, scale: Scale
) -> Image.Image:
    """Return a table of the image, followed by the overlay of each word's map."""
    overlaid = [overlay(seen, value, scale) for value in values]
    return _table([(seen, ""), *zip(overlaid, words, strict=True)], columns=COLUMNS)


def _titled(text: str, note: str, scale: Scale, table: Image.Image) -> Image.Image:
    """Return a figure of the caption, a note, the scale, and the table of panels below them."""
    width = max(table.width, 2 * BAR_WIDTH)
    bar = color_bar(scale, width=BAR_WIDTH, size=SMALL_SIZE)
    title, small = font_of(TITLE_SIZE), font_of(SMALL_SIZE)
    lines = wrapped(text, width=width - bar.width - 2 * GAP, font=title)
    line_height = round(1.3 * TITLE_SIZE)
    height = max(bar.height, GAP + line_height * len(lines) + 2 * SMALL_SIZE)
    whole = Image.new("RGB", (width, height + table.height), "white")
    draw = ImageDraw.Draw(whole)
    for index, line in enumerate(lines):
        draw.text((GAP, GAP + line_height * index), line, "black", title)
    draw.text((GAP, GAP + line_height * len(lines)), note, "black", small)
    whole.paste(bar, (width - bar.width, 0))
    whole.paste(table, (0, height))
    return whole


def _table(panels: Sequence[Panel], *, columns: int) -> Image.Image:
    """Return panels of one size in rows, each with its text centered beneath."""
    side = panels[0][0].width
    size = min(WORD_SIZE, side // 8)
    wide, high = side + GAP, side + 2 * size
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    table = Image.new("RGB", (GAP + columns * wide, GAP + rows * high), "white")
    draw = ImageDraw.Draw(table)
    for index, (panel, text) in enumerate(panels):
        x, y = GAP + index % columns * wide, GAP + index // columns * high
        table.paste(panel, (x, y))
        text, font = fitted(text, width=side, size=size)
        draw.text((x + side / 2, y + side + size / 4), text, "black", font, anchor="ma")
    return table
