"""What the page answers: a photograph's captions, its labels, the pictures that fit a text.

Plain functions; they know of no page.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image

from virtex.data.images import Pixels
from virtex.demo.photos import as_data_uri, data_uri
from virtex.errors import ConfigError
from virtex.models.textual_head import Direction
from virtex.predict.attention import CaptionAttention
from virtex.predict.attention_colors import (
    Scale,
    Values,
    in_doublings,
    ratio_scale,
    roots_of_shares,
    share_scale,
)
from virtex.predict.attention_pictures import seen_part
from virtex.predict.matching import MatchingConfig, Reading
from virtex.predict.predictor import Caption, Gallery, Predictor

NUM_CAPTIONS = 5
SHOWN_SIDE = 900
"""Longest side, in pixels, of a photograph on the page."""
NUM_FOUND = 6
MOST_LABELS, LONGEST_TEXT = 100, 200
"""Labels of a question, and letters of a label or a search."""
ENLARGED = 4
"""How many times a map is enlarged here; the browser does the rest."""
SHARE, RATIO = "share", "ratio"
"""Two ways to see a map: how much of a word's attention each place got, and how many times as much
as on average over the caption."""


@dataclass(frozen=True)
class ShownCaption:
    """A caption as the page shows it."""

    words: tuple[str, ...]
    log_likelihood: float
    backward_log_likelihood: float | None
    """None where the model reads forward alone."""
    maps: dict[tuple[Direction, str], tuple[str, ...]]
    """For each direction, and SHARE or RATIO, a picture a word: data URIs. Who reads backward has
    none of the last words of a caption that was cut before its end."""

    @property
    def word_probability(self) -> float:
        """The geometric mean over the words and the caption's end."""
        return word_probability(self.log_likelihood, len(self.words))


@dataclass(frozen=True)
class Look:
    """A photograph, what is said of it, and where the model looked."""

    photo: str
    """A data URI."""
    aspect: float
    """Its width by its height."""
    seen: tuple[float, float, float, float]
    """Left, top, width and height of the square that the model sees, as shares of the photo."""
    captions: tuple[ShownCaption, ...]
    directions: tuple[Direction, ...]


@dataclass(frozen=True)
class FoundPicture:
    """A picture that a search found."""

    index: int
    log_likelihood: float
    word_probability: float


def look_at(predictor: Predictor, pixels: Pixels) -> Look:
    """Caption a photograph, and see where the decoder looked at each word."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = seen_part(height, width, predictor.image)
    captions = predictor.captions([pixels], NUM_CAPTIONS)[0]
    directions = predictor.captioner.head.directions
    readings = {
        direction: predictor.attend([pixels] * len(captions), captions, direction=direction)
        for direction in directions
    }
    return Look(
        photo=data_uri(pixels, side=SHOWN_SIDE),
        aspect=width / height,
        seen=(left / width, top / height, (right - left) / width, (bottom - top) / height),
        captions=tuple(
            _shown(caption, {name: reading[index] for name, reading in readings.items()})
            for index, caption in enumerate(captions)
        ),
        directions=tuple(directions),
    )


def weigh_labels(
    predictor: Predictor,
    pixels: Pixels,
    text: str,
    *,
    template: str,
    prior: float,
    direction: Reading,
) -> list[tuple[str, float]]:
    """Labels, separated by commas or lines, with their probabilities, the likeliest first.

    Raises:
        ConfigError: No labels or too many, or options that the model cannot meet.
    """
    labels = split_labels(text)
    result = predictor.classify(
        [pixels],
        labels,
        templates=[template.strip() or "{}"],
        matching=MatchingConfig(direction, prior),
    )[0]
    pairs = zip(result.labels, result.probabilities, strict=True)
    return sorted(pairs, key=lambda pair: pair[1], reverse=True)


def find(predictor: Predictor, gallery: Gallery, text: str) -> list[FoundPicture]:
    """The pictures of a gallery of which a text is likeliest, the best first.

    Raises:
        ConfigError: No text, or too long a one.
    """
    text = text.strip()
    if not text or len(text) > LONGEST_TEXT:
        raise ConfigError(f"Describe a picture in 1 to {LONGEST_TEXT} letters.")
    found = predictor.search(text, gallery, top=NUM_FOUND)
    num_words = len(text.split())
    return [
        FoundPicture(one.index, one.score, word_probability(one.score, num_words)) for one in found
    ]


def split_labels(text: str) -> list[str]:
    """What stands between commas and line ends, each once.

    Raises:
        ConfigError: Nothing, or too much.
    """
    labels = list(dict.fromkeys(" ".join(part.split()) for part in re.split(r"[,;\n]", text)))
    labels = [label for label in labels if label]
    if not 1 <= len(labels) <= MOST_LABELS:
        raise ConfigError(
            f"{len(labels)} labels: type 1 to {MOST_LABELS}, with commas between them."
        )
    if any(len(label) > LONGEST_TEXT for label in labels):
        raise ConfigError(f"A label has more than {LONGEST_TEXT} letters: make it shorter.")
    return labels


def word_probability(log_likelihood: float, num_words: int) -> float:
    """The geometric mean of the probabilities of a text's words and of its end."""
    return math.exp(log_likelihood / (num_words + 1))


def map_picture(values: Values, scale: Scale) -> str:
    """A map (h, w) as a small picture to be laid over a photograph; a data URI."""
    height, width = values.shape
    size = ENLARGED * width, ENLARGED * height
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
    places = scale.places(smooth)
    middle, ends = scale.opacity
    rgba = colormaps[scale.colormap](scale.reach * places)  # (4 h, 4 w, 4)
    rgba[..., 3] = middle + (ends - middle) * abs(2 * places - 1)
    return as_data_uri(Image.fromarray((255 * rgba).round().astype(np.uint8)), "WebP")


def _shown(caption: Caption, readings: dict[Direction, CaptionAttention]) -> ShownCaption:
    forward, backward = readings["forward"], readings.get("backward")
    maps = {
        (direction, kind): pictures
        for direction, attention in readings.items()
        for kind, pictures in _map_pictures(attention).items()
    }
    return ShownCaption(
        words=forward.words,
        log_likelihood=caption.log_likelihood,
        backward_log_likelihood=backward.log_likelihood if backward else None,
        maps=maps,
    )


def _map_pictures(attention: CaptionAttention) -> dict[str, tuple[str, ...]]:
    if not attention.words:
        return {SHARE: (), RATIO: ()}
    maps = attention.maps()  # (W, h, w)
    shares = roots_of_shares(maps)
    ratios = in_doublings(attention.maps(bias=attention.mean_map))
    share = share_scale(shares, num_cells=maps[0].size)
    return {
        SHARE: tuple(map_picture(values, share) for values in shares),
        RATIO: tuple(map_picture(values, ratio_scale()) for values in ratios),
    }
