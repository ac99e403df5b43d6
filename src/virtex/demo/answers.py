"""What the API answers, as plain values for JSON: captions, labels, images found."""

import math
import re
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from virtex.data.images import Pixels
from virtex.demo.gallery import DemoGallery
from virtex.demo.uploaded_image import data_uri, thumbnail
from virtex.errors import ConfigError
from virtex.predict.attention import CaptionAttention
from virtex.predict.attention_colors import (
    Scale,
    Values,
    in_doublings,
    ratio_scale,
    roots_of_shares,
    share_scale,
)
from virtex.predict.attention_figures import seen_part
from virtex.predict.matching import MatchingConfig
from virtex.predict.predictor import Caption, Predictor

Answer = dict[str, Any]
NUM_CAPTIONS = 5
SHOWN_SIDE = 900
"""Longest side, in pixels, of an image on the page."""
NUM_FOUND = 6
MAX_LABELS, MAX_LETTERS = 100, 200
"""Number of labels in a request, and length of a label or a search."""
ENLARGED = 4
"""Factor by which a map is enlarged here; the browser does the rest."""


def caption_image(predictor: Predictor, pixels: Pixels) -> Answer:
    """Caption an image, and tell where the decoder looked at each word."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = seen_part(height, width, predictor.image)
    captions = predictor.captions([pixels], NUM_CAPTIONS)[0]
    readings = {
        direction: predictor.attend([pixels] * len(captions), captions, direction=direction)
        for direction in predictor.captioner.head.directions
    }
    return {
        "image": data_uri(thumbnail(pixels, side=SHOWN_SIDE), "JPEG"),
        "aspect": width / height,
        "seen": [left / width, top / height, (right - left) / width, (bottom - top) / height],
        "captions": [
            _caption(caption, {name: reading[index] for name, reading in readings.items()})
            for index, caption in enumerate(captions)
        ],
    }


def weigh_labels(
    predictor: Predictor, pixels: Pixels, *, text: str, template: str, prior: str, direction: str
) -> Answer:
    """Classify an image by labels, which commas or lines part; the most probable comes first.

    Raises:
        ConfigError: No labels or too many, or options that the model cannot meet.
    """
    try:
        matching = MatchingConfig(direction, float(prior))  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError(f"prior {prior!r} must be a number from 0 to 1") from None
    labels = split_labels(text)
    templates = [template.strip() or "{}"]
    result = predictor.classify([pixels], labels, templates=templates, matching=matching)[0]
    rows = zip(result.labels, result.probabilities, result.scores, strict=True)
    ranked = sorted(rows, key=lambda row: row[1], reverse=True)
    names = "label", "probability", "score"
    return {"labels": [dict(zip(names, row, strict=True)) for row in ranked]}


def search(predictor: Predictor, gallery: DemoGallery, text: str) -> Answer:
    """Find the images of a gallery under which a text is most probable, the best first.

    Raises:
        ConfigError: No images to search, no text, or one that is too long.
    """
    text = text.strip()
    if gallery.encoded is None:
        raise ConfigError("There are no images to search: start with --gallery DIR.")
    if not 1 <= len(text) <= MAX_LETTERS:
        raise ConfigError(f"Describe an image in 1 to {MAX_LETTERS} letters.")
    found = [
        {
            "gallery": one.index,
            "name": gallery.paths[one.index].name,
            "log_likelihood": one.score,
            "word_probability": word_probability(one.score, len(text.split())),
        }
        for one in predictor.search(text, gallery.encoded, top=NUM_FOUND)
    ]
    return {"found": found}


def split_labels(text: str) -> list[str]:
    """Return what stands between commas and line ends, each once.

    Raises:
        ConfigError: Nothing, or too much.
    """
    labels = list(dict.fromkeys(" ".join(part.split()) for part in re.split(r"[,;\n]", text)))
    labels = [label for label in labels if label]
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ConfigError(
            f"{len(labels)} labels: type 1 to {MAX_LABELS}, with commas between them."
        )
    if any(len(label) > MAX_LETTERS for label in labels):
        raise ConfigError(f"A label has more than {MAX_LETTERS} letters: make it shorter.")
    return labels


def word_probability(log_likelihood: float, num_words: int) -> float:
    """Return the geometric mean of the probabilities of a text's words and of its end."""
    return math.exp(log_likelihood / (num_words + 1))


def map_image(values: Values, scale: Scale) -> str:
    """Draw a map (h, w) as a small image to be laid over a photo; a data URI."""
    height, width = values.shape
    size = ENLARGED * width, ENLARGED * height
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
    places = scale.places(smooth)
    middle, ends = scale.opacity
    rgba = colormaps[scale.colormap](scale.reach * places)  # (4 h, 4 w, 4)
    rgba[..., 3] = middle + (ends - middle) * abs(2 * places - 1)
    return _drawn(rgba)


def scale_images() -> dict[str, str]:
    """Draw the colors of the two kinds of maps as strips, from low to high; data URIs."""
    scales = {"share": share_scale(np.zeros((1, 1), np.float32), num_cells=1)}
    scales["ratio"] = ratio_scale()
    return {
        kind: _drawn(colormaps[scale.colormap](np.linspace(0, scale.reach, 128))[None])
        for kind, scale in scales.items()
    }


def _drawn(rgba: Values) -> str:
    return data_uri(Image.fromarray((255 * rgba).round().astype(np.uint8)), "WebP")


def _caption(caption: Caption, readings: dict[Any, CaptionAttention]) -> Answer:
    forward, backward = readings["forward"], readings.get("backward")
    return {
        "text": caption.text,
        "words": forward.words,
        "log_likelihood": caption.log_likelihood,
        "word_probability": word_probability(caption.log_likelihood, len(forward.words)),
        "backward_log_likelihood": backward.log_likelihood if backward else None,
        "attention": {
            name: one.maps().round(5).tolist() if one.words else []
            for name, one in readings.items()
        },
        "maps": {name: _map_images(one) for name, one in readings.items()},
    }


def _map_images(attention: CaptionAttention) -> dict[str, list[str]]:
    if not attention.words:
        return {"share": [], "ratio": []}
    maps = attention.maps()  # (W, h, w)
    shares = roots_of_shares(maps)
    share = share_scale(shares, num_cells=maps[0].size)
    ratios = in_doublings(attention.maps(bias=attention.mean_map))
    return {
        "share": [map_image(values, share) for values in shares],
        "ratio": [map_image(values, ratio_scale()) for values in ratios],
    }
