"""Answers of the API as plain values for JSON: captions, labels, search hits."""

import math
import re
from typing import Any

import numpy as np
from PIL import Image

from virtex.data.images import Pixels
from virtex.demo.gallery import DemoGallery
from virtex.demo.uploaded_image import data_uri, thumbnail
from virtex.errors import ConfigError
from virtex.models.packing import Direction
from virtex.predict.attention import CaptionAttention
from virtex.predict.attention_colors import Scale, Values, scale_fractions, scale_ratios
from virtex.predict.attention_figures import seen_part
from virtex.predict.matching import MatchingConfig
from virtex.predict.predictor import Predictor
from virtex.predict.results import Caption

Answer = dict[str, Any]
NUM_CAPTIONS, NUM_FOUND = 5, 6
SHOWN_SIDE = 900
"""Longest side, in pixels, of an image on the page."""
MAX_LABELS, MAX_LETTERS = 100, 200
"""Number of labels in a request, and length of a label or a search."""
ENLARGED = 4
"""Factor by which a map is enlarged here; the browser does the rest."""


def caption_image(predictor: Predictor, pixels: Pixels) -> Answer:
    """Caption an image, and return a map of attention for each word."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = seen_part(height, width, predictor.image)
    captions = predictor.captions([pixels], NUM_CAPTIONS)[0]
    attentions = {
        direction: predictor.attend([pixels] * len(captions), captions, direction=direction)
        for direction in predictor.captioner.head.directions
    }
    return {
        "image": data_uri(thumbnail(pixels, side=SHOWN_SIDE), "JPEG"),
        "aspect": width / height,
        "seen": [left / width, top / height, (right - left) / width, (bottom - top) / height],
        "captions": [
            _caption(caption, {direction: each[index] for direction, each in attentions.items()})
            for index, caption in enumerate(captions)
        ],
    }


def rank_labels(
    predictor: Predictor, pixels: Pixels, *, text: str, template: str, prior: str, direction: str
) -> Answer:
    """Rank the labels in `text`, which `split_labels` splits, by their probability for an image.

    Raises:
        ConfigError: There are no labels or too many, or the model does not support the options.
    """
    try:
        matching = MatchingConfig(direction, float(prior))  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError(f"prior {prior!r} must be a number from 0 to 1") from None
    labels, templates = split_labels(text), [template.strip() or "{}"]
    result = predictor.classify([pixels], labels, templates=templates, matching=matching)[0]
    rows = [
        {"label": label, "probability": probability, "score": score}
        for (label, score), probability in zip(
            result.ranked, sorted(result.probabilities, reverse=True), strict=True
        )
    ]
    return {"labels": rows}


def search(predictor: Predictor, gallery: DemoGallery, text: str) -> Answer:
    """Rank the images of a gallery by the probability of a text, and return the best.

    Raises:
        ConfigError: There are no images, or the text is empty or too long.
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
    """Return the labels between commas, semicolons and line ends, each once.

    Raises:
        ConfigError: There are no labels or too many, or one is too long.
    """
    labels = dict.fromkeys(" ".join(part.split()) for part in re.split(r"[,;\n]", text))
    labels.pop("", None)
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ConfigError(
            f"{len(labels)} labels: type 1 to {MAX_LABELS}, with commas between them."
        )
    if any(len(label) > MAX_LETTERS for label in labels):
        raise ConfigError(f"A label has more than {MAX_LETTERS} letters: make it shorter.")
    return list(labels)


def word_probability(log_likelihood: float, num_words: int) -> float:
    """Return the geometric mean of the probabilities of a text's words and of its end."""
    return math.exp(log_likelihood / (num_words + 1))


def map_image(values: Values, scale: Scale) -> str:
    """Return a map (h, w) as a data URI of a small image, which the page lays over the photo."""
    size = ENLARGED * values.shape[1], ENLARGED * values.shape[0]
    enlarged = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
    return _webp(np.dstack(scale.paint(np.asarray(enlarged))))


def scale_images() -> dict[str, str]:
    """Return the colors of each kind of map, from low to high, as a data URI of a strip."""
    scales = {
        "share": scale_fractions(np.zeros((1, 1), np.float32))[1],
        "ratio": scale_ratios(np.ones((1, 1), np.float32))[1],
    }
    return {
        kind: _webp(scale.paint(np.linspace(scale.low, scale.high, 128, dtype=np.float32)[None])[0])
        for kind, scale in scales.items()
    }


def _webp(colors: Values) -> str:
    return data_uri(Image.fromarray((255 * colors).round().astype(np.uint8)), "WebP")


def _caption(caption: Caption, attentions: dict[Direction, CaptionAttention]) -> Answer:
    forward, backward = attentions["forward"], attentions.get("backward")
    return {
        "text": caption.text,
        "words": forward.words,
        "log_likelihood": caption.log_likelihood,
        "word_probability": word_probability(caption.log_likelihood, len(forward.words)),
        "backward_log_likelihood": backward.log_likelihood if backward else None,
        "attention": {
            direction: one.maps().round(5).tolist() if one.words else []
            for direction, one in attentions.items()
        },
        "maps": {direction: _map_images(one) for direction, one in attentions.items()},
    }


def _map_images(attention: CaptionAttention) -> dict[str, list[str]]:
    if not attention.words:
        return {"share": [], "ratio": []}
    scaled = {
        "share": scale_fractions(attention.maps()),
        "ratio": scale_ratios(attention.maps(bias=attention.mean_map)),
    }
    return {
        kind: [map_image(one, scale) for one in values] for kind, (values, scale) in scaled.items()
    }
